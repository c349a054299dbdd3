"""Pyramid, main head and auxiliary head: from backbone features to logits of every category."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from artifactnet.config import SegmentationConfig
from artifactnet.models.backbone import Backbone
from artifactnet.models.pyramid import LevelNorms, SimplePyramid
from artifactnet.models.segmentation import OUTPUTS
from artifactnet.models.upernet_head import fcn_head, uper_head
from artifactnet.types import ArtifactNetError

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
