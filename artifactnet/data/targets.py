"""What heatmap heads are trained on and evaluated against."""

from __future__ import annotations

import torch
from torch import Tensor

from artifactnet.types import UNSEEN_SIGMA, Batch


def annotated_target(batch: Batch) -> Tensor:
    """(B, H, W) in [0, 1]: the annotated heatmap, else the mask of any artifact."""
    soft = batch.heatmap.amax((1, 2)) > 0
    return torch.where(soft[:, None, None], batch.heatmap, (batch.mask > 0).float())


def seen_by_teacher(sigma: Tensor) -> Tensor:
    """Which pixels of a teacher's (B, H, W) sigma it looked at, blended ones by their larger part.

    The others (cut off by its resize policy, or padding of ours) carry no target.
    """
    return sigma < UNSEEN_SIGMA / 2
