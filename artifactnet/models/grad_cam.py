"""Grad-CAM in torch: a map of where a logit comes from that can be trained on."""

from __future__ import annotations

import torch
from torch import Tensor


def grad_cam(logit: Tensor, features: Tensor, create_graph: bool) -> Tensor:
    """Gradient-weighted class activation map (Selvaraju et al. 2017) of the fake logit.

    Channel weights are the spatial mean of ``d logit / d features``; the map is the positive
    part of the channels' weighted sum. One backward pass serves the batch, because an image's
    logit depends on that image alone; with batch norm in training mode it does not, and the
    weights of an image would include its influence on the logits of the others.

    Args:
        logit: (B,) logits of the fake class.
        features: (B, C, h, w) that ``logit`` was computed from (not a copy), with gradients.
        create_graph: the map can be differentiated, also through the gradients inside it.

    Returns:
        (B, h, w) raw map >= 0 of no fixed scale, float32 or wider.

    Raises:
        ValueError: shapes do not match.
    """
    if features.ndim != 4 or logit.shape != features.shape[:1]:
        raise ValueError(
            "expected logits (B,) and features (B, C, h, w), got "
            f"{tuple(logit.shape)} and {tuple(features.shape)}"
        )
    (gradient,) = torch.autograd.grad(
        logit.sum(), features, create_graph=create_graph, retain_graph=True
    )
    precise = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False), torch.set_grad_enabled(create_graph):
        weights = gradient.to(precise).mean(dim=(2, 3), keepdim=True)
        return (weights * features.to(precise)).sum(1).relu()
