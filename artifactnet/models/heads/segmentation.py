"""Pyramid, main head and auxiliary head: from backbone features to logits of every category."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from artifactnet.config import SegmentationConfig
from artifactnet.models.backbone import Backbone
from artifactnet.models.heads.upernet import fcn_head, uper_head
from artifactnet.models.pyramid import LevelNorms, SimplePyramid
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED_BIT
from artifactnet.types import ArtifactNetError

OUTPUTS = {"softmax": 1 + len(CATEGORIES), "sigmoid": len(CATEGORIES)}  # channels of a head


def probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of each category and of any artifact at all.

    Args:
        logits: (B, 8, h, w), of which a softmax is taken over background and the seven
            categories (X-AIGD B.2); or (B, 7, h, w), one sigmoid per category.

    Returns:
        (B, 7, h, w) per category and (B, h, w) of any: their sum under the softmax, their
        largest under sigmoids. Float32 or better, in [0, 1].

    Raises:
        ValueError: neither 7 nor 8 channels.
    """
    if logits.ndim != 4 or logits.shape[1] not in OUTPUTS.values():
        raise ValueError(f"expected (B, 7 or 8, h, w) logits, got {tuple(logits.shape)}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.shape[1] == OUTPUTS["sigmoid"]:
        each = logits.sigmoid()
        return each, each.amax(1)
    shares = logits.softmax(1)
    return shares[:, 1:], shares[:, 1:].sum(1).clamp(max=1)


def bit_field(
    categories: Tensor, artifact: Tensor, threshold: float, exclusive: bool, known: Sequence[int]
) -> Tensor:
    """Mask of the categories found.

    A pixel is artifact where the probability of any artifact exceeds the threshold. Under a
    softmax it then has its likeliest category; under sigmoids every category that exceeds
    the threshold itself. Categories that the model was never taught do not take part; an
    artifact pixel left without any has bit 0 (uncategorised).

    Args:
        categories: (B, 7, H, W) in [0, 1], see `probabilities`.
        artifact: (B, H, W) in [0, 1].
        threshold: artifact if above, strictly.
        exclusive: one category per pixel (softmax), or any number (sigmoids).
        known: indices 1..7 of the categories that the model was taught.

    Returns:
        (B, H, W) uint8 bit field, see `artifactnet.taxonomy`.
    """
    found = artifact > threshold
    bits = torch.zeros(artifact.shape, dtype=torch.uint8, device=artifact.device)
    if known:
        planes = categories[:, [index - 1 for index in known]]
        values = torch.tensor([1 << index for index in known], device=bits.device)
        if exclusive:
            bits = values[planes.max(1).indices].to(torch.uint8)
        else:
            bits = ((planes > threshold) * values[:, None, None]).sum(1).to(torch.uint8)
    bits = torch.where(bits == 0, UNCATEGORIZED_BIT, bits)
    return torch.where(found, bits, 0).to(torch.uint8)


_EVIDENCE_SHARE = 0.01  # of the pixels: the strongest ones


class SegmentationHead(nn.Module):
    """Where the artifacts are, to the pixel (X-AIGD Sec. 5, B.2).

    Args:
        config: of the heads.
        backbone: whose pyramid they read.

    Attributes:
        pyramid: from the backbone's features to the levels.
        main: UPerNet.
        auxiliary: FCN on the second coarsest level, used in training alone.

    Raises:
        ArtifactNetError: the backbone has no feature pyramid, or mmsegmentation is missing.
    """

    def __init__(self, config: SegmentationConfig, backbone: Backbone) -> None:
        super().__init__()
        if backbone.no_pyramid is not None:
            raise ArtifactNetError(f"model.segmentation.head=upernet: {backbone.no_pyramid}")
        channels, outputs = backbone.level_channels, OUTPUTS[config.labels]
        self.pyramid: nn.Module = LevelNorms(channels)
        if not backbone.hierarchical:
            self.pyramid = SimplePyramid(channels[0])
        self.main = uper_head(channels, config.channels, outputs, config.dropout)
        self.auxiliary = fcn_head(
            channels, len(channels) - 2, config.auxiliary_channels, outputs, config.dropout
        )

    def forward(self, levels: list[Tensor], auxiliary: bool) -> tuple[Tensor, Tensor | None]:
        """Logits of the main head, and of the auxiliary one where it is asked for.

        Args:
            levels: features of the backbone, finest first.
            auxiliary: training computes both.

        Returns:
            (B, K, h, w) at the finest level's stride; (B, K, h', w') or None.
        """
        features = self.pyramid(levels)
        return self.main(features), self.auxiliary(features) if auxiliary else None


def strongest_evidence(logits: Tensor) -> Tensor:
    """How sure the head is of the most suspicious hundredth of the image.

    Args:
        logits: (B, 8, h, w) under a softmax or (B, 7, h, w) under sigmoids.

    Returns:
        (B, 1) mean of the largest 1 % of the pixels' log-odds of any artifact.
    """
    if logits.shape[1] == OUTPUTS["softmax"]:
        odds = logits[:, 1:].logsumexp(1) - logits[:, 0]
    else:
        odds = logits.amax(1)
    return strongest(odds)


def strongest(odds: Tensor) -> Tensor:
    """(B, h, w) log-odds of an artifact to (B, 1): mean of the largest 1 % of the cells."""
    odds = odds.flatten(1)
    count = max(1, round(_EVIDENCE_SHARE * odds.shape[1]))
    return torch.topk(odds, count, dim=1).values.mean(1, keepdim=True)
