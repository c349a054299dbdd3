"""The segmentation head, and what its logits mean: probabilities, any-artifact map, bit field."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifactnet.config import SegmentationConfig
from artifactnet.models.heads.upernet import fcn_head, uper_head
from artifactnet.models.pyramid import LevelNorms, SimplePyramid
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED_BIT
from artifactnet.types import Float32Array

OUTPUTS = {"softmax": 1 + len(CATEGORIES), "sigmoid": len(CATEGORIES)}  # channels of a head


class SegmentationHead(nn.Module):
    """Where the artifacts are, to the pixel (X-AIGD Sec. 5, B.2).

    Args:
        config: of the heads: UPerNet, and an auxiliary FCN on the second coarsest level.
        channels: of the backbone's pyramid levels, finest first.
        hierarchical: whether these levels differ in resolution; otherwise the head scales them.

    Raises:
        ArtifactNetError: mmsegmentation is missing.
    """

    def __init__(
        self, config: SegmentationConfig, channels: Sequence[int], hierarchical: bool
    ) -> None:
        super().__init__()
        outputs = OUTPUTS[config.labels]
        self.pyramid: nn.Module = LevelNorms(channels)
        if not hierarchical:
            self.pyramid = SimplePyramid(channels[0])
        self.main = uper_head(channels, config.channels, outputs, config.dropout)
        self.auxiliary = fcn_head(
            channels, len(channels) - 2, config.auxiliary_channels, outputs, config.dropout
        )

    def forward(self, levels: list[Tensor], auxiliary: bool) -> tuple[Tensor, Tensor | None]:
        """Logits (B, K, h, w) at the stride of the finest of ``levels``, which comes first.

        With ``auxiliary``, for training, also those of the auxiliary head (B, K, h', w').
        """
        features = self.pyramid(levels)
        return self.main(features), self.auxiliary(features) if auxiliary else None


def probabilities(logits: Tensor, size: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Probability of each category and of any artifact at all.

    Args:
        logits: (B, 8, h, w), of which a softmax is taken over background and the seven
            categories (X-AIGD B.2); or (B, 7, h, w), one sigmoid per category.
        size: (H, W) of the result; None: (h, w). Logits are interpolated, not probabilities,
            as the head was trained.

    Returns:
        (B, 7, H, W) per category and (B, H, W) of any: their sum under the softmax, their
        largest under sigmoids. Float32 or wider, in [0, 1].

    Raises:
        ValueError: neither 7 nor 8 channels.
    """
    if logits.ndim != 4 or logits.shape[1] not in OUTPUTS.values():
        raise ValueError(f"expected (B, 7 or 8, h, w) logits, got {tuple(logits.shape)}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if size is not None:
        logits = F.interpolate(logits, (size[0], size[1]), mode="bilinear")
    if logits.shape[1] == OUTPUTS["sigmoid"]:
        each = logits.sigmoid()
        return each, each.amax(1)
    shares = logits.softmax(1)
    return shares[:, 1:], shares[:, 1:].sum(1).clamp(max=1)


def any_artifact(logits: Tensor, size: Sequence[int] | None = None) -> Tensor:
    """(B, H, W) probability of any artifact; see `probabilities`."""
    return probabilities(logits, size)[1]


def any_artifact_of_planes(planes: Float32Array, exclusive: bool) -> Float32Array:
    """Probability (H, W) of any artifact from (7, H, W) probabilities of the categories.

    Args:
        planes: in [0, 1], e.g. at an image's own size.
        exclusive: the categories exclude one another (softmax), or may overlap (sigmoids).
    """
    return np.minimum(planes.sum(0), 1) if exclusive else planes.max(0)


def artifact_log_odds(logits: Tensor) -> Tensor:
    """(B, h, w) log-odds of any artifact, of (B, 8, h, w) or (B, 7, h, w) logits."""
    if logits.shape[1] == OUTPUTS["softmax"]:
        return logits[:, 1:].logsumexp(1) - logits[:, 0]
    return logits.amax(1)


def bit_field(
    categories: Tensor, artifact: Tensor, threshold: float, exclusive: bool, known: Sequence[int]
) -> Tensor:
    """Bit-field mask of the predicted categories.

    A pixel is artifact where the probability of any artifact exceeds the threshold. Under a
    softmax it then has its likeliest category; under sigmoids every category that exceeds
    the threshold itself. Categories that the model was not trained on do not take part; an
    artifact pixel without any of the others has bit 0 (uncategorised).

    Args:
        categories: (B, 7, H, W) in [0, 1], see `probabilities`.
        artifact: (B, H, W) in [0, 1].
        threshold: artifact if above, strictly.
        exclusive: one category per pixel (softmax), or any number (sigmoids).
        known: indices 1..7 of the categories that the model was trained on.

    Returns:
        (B, H, W) uint8 bit field, see `artifactnet.taxonomy`.
    """
    bits = torch.zeros(artifact.shape, dtype=torch.uint8, device=artifact.device)
    if known:
        planes = categories[:, [index - 1 for index in known]]
        values = torch.tensor([1 << index for index in known], device=bits.device)
        if exclusive:
            bits = values[planes.max(1).indices].to(torch.uint8)
        else:
            bits = ((planes > threshold) * values[:, None, None]).sum(1).to(torch.uint8)
    bits = torch.where(bits == 0, UNCATEGORIZED_BIT, bits)
    return torch.where(artifact > threshold, bits, 0).to(torch.uint8)
