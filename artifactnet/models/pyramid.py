"""Feature pyramids: the levels that dense heads read from a backbone, finest first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LEVELS = 4


def level_indices(reductions: Sequence[int]) -> tuple[int, ...]:
    """Which of a backbone's stages or blocks become levels.

    Args:
        reductions: stride of each stage (all different) or block (all equal).

    Returns:
        The last four stages; or four blocks evenly spread up to the last (3, 6, 9 and 12 of
        twelve, counted from 1), as the public ViT-UPerNet recipes do.

    Raises:
        ValueError: fewer than four blocks, or fewer than two stages.
    """
    depth = len(reductions)
    if is_hierarchy(reductions):
        if depth < 2:
            raise ValueError(f"{depth} stage is no pyramid")
        return tuple(range(max(0, depth - LEVELS), depth))
    if depth < LEVELS:
        raise ValueError(f"{depth} blocks give no {LEVELS} levels")
    return tuple((k + 1) * depth // LEVELS - 1 for k in range(LEVELS))


def is_hierarchy(reductions: Sequence[int]) -> bool:
    """Whether later features are coarser than earlier ones (Swin, ConvNeXt, ResNet, ...)."""
    return len(set(reductions)) > 1


class LevelNorms(nn.Module):
    """A layer norm over the channels of each level, as in mmsegmentation's Swin."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in channels)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Normalise (B, C_k, h_k, w_k); shapes stay."""
        return [
            norm(level.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            for norm, level in zip(self.norms, levels, strict=True)
        ]


class SimplePyramid(nn.Module):
    """Four scales from four equally large maps of a plain ViT (Li et al. 2022; Bao et al. 2022).

    Patches of 16 pixels give the strides 4, 8, 16 and 32; channels stay.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = LevelNorms([channels] * LEVELS)
        finest = _double(channels), _ChannelNorm(channels), nn.GELU(), _double(channels)
        coarsest = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)
        levels = [nn.Sequential(*finest), _double(channels), nn.Identity(), coarsest]
        self.scales = nn.ModuleList(levels)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Four (B, C, h, w) to (B, C, 4h, 4w), (B, C, 2h, 2w), (B, C, h, w), (B, C, h/2, w/2)."""
        normed = self.norms(levels)
        return [scale(level) for scale, level in zip(self.scales, normed, strict=True)]


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, h, w)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _double(channels: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
