"""Similarity-preserving distillation of features (Tung & Mori 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def similarity_loss(feature: Tensor, target: Tensor) -> Tensor:
    """How differently student and teacher relate the images of a batch (Tung & Mori 2019, Eq. 4).

    With G the (B, B) products of all pairs of features, each row divided by its L2 norm, the loss
    is ``|G_teacher - G_student|_F^2 / B^2``. The two may have different numbers of channels. It
    lies in [0, 4 / B]; a single image relates to nothing: 0. Computed in float32 or better, under
    autocast as well. In a distributed run each process compares its own images.

    Args:
        feature: (B, C) of the student.
        target: (B, D) of the teacher.

    Raises:
        ValueError: shapes do not match or the batch is empty.
    """
    if feature.ndim != 2 or target.ndim != 2 or len(feature) != len(target) or len(feature) == 0:
        raise ValueError(f"feature {tuple(feature.shape)} and target {tuple(target.shape)}")
    with torch.autocast(feature.device.type, enabled=False):
        return (_relations(target) - _relations(feature)).square().mean()


def _relations(feature: Tensor) -> Tensor:
    precise = feature.to(torch.promote_types(feature.dtype, torch.float32))
    return F.normalize(precise @ precise.T, dim=1)
