"""The adaptive heatmap fuser: one heatmap of a global and a local one (HEIE Sec. 3.2.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from artifactnet.types import HeatmapLevel

MODES = ("uncertainty", "learnable", "fixed", "global", "local")


class Fuser(nn.Module):
    """Weighted mean of the heatmap of the whole image and that of its tiles.

    The weights add up to 1. The local one is, by mode (HEIE Tab. 5):

    - ``uncertainty``: e^-sigma_l / (e^-sigma_l + e^-sigma_g), per pixel;
    - ``learnable``: one learned number for all pixels, 1/2 at first;
    - ``fixed``: 1/2;
    - ``global``: 0; ``local``: 1.

    Sigma is fused with the same weights. That is the deviation of the fused heatmap if both err
    alike, and never less than it (the triangle inequality).

    Args:
        mode: one of `MODES`.

    Raises:
        ValueError: it is none of them.
    """

    def __init__(self, mode: str) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"unknown fusion mode {mode!r}: one of {', '.join(MODES)}")
        self.mode = mode
        self.preference: nn.Parameter | None = None
        if mode == "learnable":
            self.preference = nn.Parameter(torch.zeros(1))  # FSDP divides no scalars

    def forward(self, whole: HeatmapLevel, local: HeatmapLevel) -> tuple[Tensor, Tensor]:
        """Fuse.

        Args:
            whole: of the whole image, (B, h, w).
            local: of its stitched tiles, the same size.

        Returns:
            Heatmap in [0, 1] and sigma > 0, both (B, h, w), float32 or better.

        Raises:
            ValueError: the sizes differ.
        """
        if whole.logit.shape != local.logit.shape:
            raise ValueError(
                f"global heatmap {tuple(whole.logit.shape)} and local heatmap "
                f"{tuple(local.logit.shape)} differ in size"
            )
        heatmaps, sigmas = [], []
        for level in (whole, local):
            precise = torch.promote_types(level.logit.dtype, torch.float32)
            heatmaps.append(level.logit.to(precise).sigmoid())
            sigmas.append(level.log_sigma.to(precise).exp())
        if self.mode == "global":
            return heatmaps[0], sigmas[0]
        if self.mode == "local":
            return heatmaps[1], sigmas[1]
        weight = self._local_weight(*sigmas)
        heatmap, sigma = (one + weight * (two - one) for one, two in (heatmaps, sigmas))
        return heatmap.clamp(0, 1), sigma  # the sum may round to just outside

    def _local_weight(self, whole: Tensor, local: Tensor) -> Tensor:
        """Weight of the local map, (B, h, w) or a scalar, from both deviations."""
        if self.mode == "uncertainty":
            return (whole - local).sigmoid()  # the quotient above, without its underflow
        if self.preference is not None:
            return self.preference.to(whole.dtype).sigmoid()
        return whole.new_tensor(0.5)
