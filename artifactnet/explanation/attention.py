"""Maps made from the attention of a ViT, of ours or of any plain timm ViT."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from artifactnet.explanation.detector import Detector
from artifactnet.models.attention.rollout import (
    attention_rollout,
    gradient_rollout,
    patch_map,
    relevance_row,
)
from artifactnet.models.attention.tap import AttentionTap
from artifactnet.models.backbone import why_no_rollout
from artifactnet.models.state import undisturbed
from artifactnet.types import ArtifactNetError

ATTENTION_METHODS = {
    "rollout": "Attention Rollout (Abnar & Zuidema 2020): where the class token looks",
    "gradient_rollout": "Gradient Attention Rollout (Gildenblat 2020), of the fake logit",
    "relevance": "Relevance Map (Chefer et al. 2021), of the fake logit",
}


def why_no_attention_map(net: nn.Module) -> str | None:
    """Why no map of `ATTENTION_METHODS` can be made of a network, or None."""
    return why_no_rollout(net, type(net).__name__)


def attention_maps(detector: Detector, images: Tensor, method: str) -> Tensor:
    """One map per image on the grid of patches, in the method's own units.

    Args:
        detector: its ``net`` is a plain timm ViT; its state is restored.
        images: (B, 3, H, W) preprocessed; H and W are multiples of the patch size.
        method: one of `ATTENTION_METHODS`.

    Returns:
        (B, h, w) float32 or wider, >= 0, on the CPU.

    Raises:
        ArtifactNetError: the network has no such attention, or does not use fused attention.
        ValueError: unknown method.
    """
    reason = why_no_attention_map(detector.net)
    if reason is not None:
        raise ArtifactNetError(f"no {method} map: {reason}")
    if method not in ATTENTION_METHODS:
        raise ValueError(f"method must be one of {list(ATTENTION_METHODS)}, not {method!r}")
    net: Any = detector.net
    needs_gradient = method != "rollout"
    with (
        undisturbed(detector.module),
        torch.inference_mode(False),
        torch.set_grad_enabled(needs_gradient),
    ):
        images = images.clone() if images.is_inference() else images
        with AttentionTap(differentiable=needs_gradient) as tap:
            logit = detector.logits(images)
        if len(tap.layers) != len(net.blocks):
            raise ArtifactNetError(
                f"no {method} map: {len(tap.layers)} of {len(net.blocks)} blocks of "
                f"{type(net).__name__} use fused attention; is timm's switched off "
                "(TIMM_FUSED_ATTN=0)?"
            )
        if method == "rollout":
            row = attention_rollout(tap.layers)
        else:
            rows = {"gradient_rollout": gradient_rollout, "relevance": relevance_row}
            row = rows[method](logit, tap.layers)
    # behind a ResNet a patch covers more pixels than its own sides say
    grid = net.patch_embed.dynamic_feat_size(tuple(images.shape[-2:]))
    return patch_map(row.detach(), net.num_prefix_tokens, grid).cpu()
