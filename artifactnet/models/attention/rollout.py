"""Relevance maps of a ViT: which patches the prediction of the class token depends on."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache

import torch

from artifactnet.models.attention.chains import collecting, mean_row, weighted_row
from artifactnet.models.attention.stored import (
    attention_weights,
    chain_rows,
    fuse_heads,
    gradient_of_attention,
)
from artifactnet.models.attention.tap import AttentionLayer

NORMALIZATIONS = ("saturate", "max", "minmax", "none")
_log = logging.getLogger(__name__)


def attention_rollout(
    layers: Sequence[AttentionLayer],
    *,
    head_fusion: str = "mean",
    discard_ratio: float = 0.0,
    start_layer: int = 0,
    form: str = "auto",
) -> torch.Tensor:
    """Class token's row of standard Attention Rollout (Abnar & Zuidema 2020).

    Args:
        layers: the blocks' attention, first block first.
        head_fusion: ``mean``, ``max`` or ``min``.
        discard_ratio: share of the weakest fused weights dropped per block and image.
        start_layer: first block that takes part; negative: counted from the end.
        form: ``auto``: no N x N matrices of heads are stored where heads are averaged, nothing is
            discarded and the attention has no bias. ``triton``: the same by Triton kernels on an
            NVIDIA GPU. ``stored``: always by whole matrices.

    Returns:
        (B, N) over all tokens, prefix tokens included; non-negative, each row sums to 1.

    Raises:
        ValueError: no block is left, or ``head_fusion`` is unknown.
    """
    layers = _chosen(layers, start_layer)
    with torch.autocast(layers[0].q.device.type, enabled=False):
        if not _stores(layers, head_fusion, discard_ratio, form):
            return mean_row(layers, form == "triton")

        def matrix_of(index: int, rows: slice) -> torch.Tensor:
            return fuse_heads(attention_weights(layers[index], rows), head_fusion)

        return chain_rows(layers, matrix_of, True, discard_ratio)


def gradient_rollout(
    logit: torch.Tensor,
    layers: Sequence[AttentionLayer],
    *,
    head_fusion: str = "mean",
    discard_ratio: float = 0.0,
    start_layer: int = 0,
    second_order: bool = True,
    create_graph: bool = False,
    form: str = "auto",
) -> torch.Tensor:
    """Class token's row of Gradient Attention Rollout (Gildenblat 2020; X-AIGD Sec. 6.1).

    Args:
        logit: (B,) logits of the fake class; a sample's logit must depend on that sample alone.
        layers: the blocks' attention, recorded in the forward pass that gave ``logit``; by a tap
            with ``fused=False`` where the map is differentiated to second order.
        head_fusion: ``mean``, ``max`` or ``min`` of P * G over heads.
        discard_ratio, start_layer: as of `attention_rollout`.
        second_order: with ``create_graph``, also differentiate through the gradient dO. If
            False, dO is a constant while q, k and v carry gradient (one more backward only).
        form: as of `attention_rollout`; first order keeps one matrix per block and image, heads
            fused, while it takes no more than q, k, v and dO (N <= 4 H d).

    Returns:
        (B, N) over all tokens; non-negative, each row sums to 1.
    """
    layers = _chosen(layers, start_layer)
    exact = create_graph and second_order
    with torch.set_grad_enabled(create_graph):
        stores = _stores(layers, head_fusion, discard_ratio, form)
    collects = create_graph and not exact and not stores
    with collecting(layers) if collects else nullcontext():
        gradients = output_gradients(logit, layers, exact)
    with torch.autocast(logit.device.type, enabled=False), torch.set_grad_enabled(create_graph):
        if not stores:
            return weighted_row(layers, gradients, form == "triton")

        def matrix_of(index: int, rows: slice) -> torch.Tensor:
            weights = attention_weights(layers[index], rows)
            slope = gradient_of_attention(layers[index], gradients[index], rows, weights.dtype)
            return fuse_heads(weights * slope, head_fusion).clamp_min(0)

        return chain_rows(layers, matrix_of, True, discard_ratio)


def _stores(
    layers: Sequence[AttentionLayer], head_fusion: str, discard_ratio: float, form: str
) -> bool:
    """Whether whole matrices are needed; logged once if nobody requested them."""
    if form == "stored":
        return True
    reason = None
    if head_fusion != "mean":
        reason = f"head_fusion={head_fusion} needs every head's matrix"
    elif discard_ratio:
        reason = f"discard_ratio={discard_ratio} needs whole matrices"
    elif any(layer.bias is not None for layer in layers):
        reason = "the attention has a bias"
    if reason is not None and torch.is_grad_enabled():
        _log_once(reason)
    return reason is not None


@cache
def _log_once(reason: str) -> None:
    _log.warning("rollout keeps every block's N x N matrix for its gradient: %s", reason)


def output_gradients(
    logit: torch.Tensor, layers: Sequence[AttentionLayer], create_graph: bool = False
) -> tuple[torch.Tensor, ...]:
    """Gradient dO (B, H, N, d) of each image's logit with respect to each attention output."""
    outputs = [layer.out for layer in layers]
    return torch.autograd.grad(logit.sum(), outputs, create_graph=create_graph, retain_graph=True)


def patch_map(row: torch.Tensor, prefix_tokens: int, grid: tuple[int, int]) -> torch.Tensor:
    """Drop the prefix tokens (class, registers) of a (B, N) row and reshape to (B, h, w)."""
    patches = row[:, prefix_tokens:]
    if patches.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"{patches.shape[1]} patch tokens do not fill a grid of {grid}")
    return patches.reshape(-1, *grid)


def normalize(attention: torch.Tensor, how: str) -> torch.Tensor:
    """Bring raw attention into [0, 1] (the paper does not say how; our reading, named options).

    Args:
        attention: (B, h, w) raw weights, non-negative, summing to at most 1 per image.
        how: ``saturate``: 1 - 2^(-n a / 2) with n = h w, so that a patch with twice its even
            share of the whole attention gets 0.5, and a class token that looks at itself gives
            zeros: real images can reach their all-zero target, evenly spread attention (0.29)
            marks nothing. ``max``: divided by the image's maximum (the public script's way;
            never zero). ``minmax``: stretched to 0..1. ``none``: left raw.
    """
    if how == "none":
        return attention
    if how == "saturate":
        return -torch.expm1(attention * (-0.5 * math.log(2) * attention[0].numel()))
    tiny = torch.finfo(attention.dtype).tiny
    top = attention.amax(dim=(1, 2), keepdim=True)
    if how == "max":
        return attention / top.clamp_min(tiny)
    if how == "minmax":
        bottom = attention.amin(dim=(1, 2), keepdim=True)
        return (attention - bottom) / (top - bottom).clamp_min(tiny)
    raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, not {how!r}")


def _chosen(layers: Sequence[AttentionLayer], start_layer: int) -> Sequence[AttentionLayer]:
    if not -len(layers) <= start_layer < len(layers):
        raise ValueError(f"start_layer {start_layer} leaves none of {len(layers)} blocks")
    return layers[start_layer:]


def relevance_row(logit: torch.Tensor, layers: Sequence[AttentionLayer]) -> torch.Tensor:
    """Class token's row of the relevance map of Chefer et al. (2021), for pure self-attention.

    Their update R <- R + W_l R with W_l = mean_h relu(G_h * A_h), from the first block to the
    last, starting at the identity, multiplies the factors (I + W_l); the class row of that
    product follows from the last block down, r <- r + r W_l, without any N x N product.
    ``logit`` and ``layers`` are as of `gradient_rollout`.

    Returns:
        (B, N) over all tokens, float32 or wider, without graph; non-negative, of no fixed scale.
    """
    gradients = output_gradients(logit, layers)

    def matrix_of(index: int, rows: slice) -> torch.Tensor:
        weights = attention_weights(layers[index], rows)
        slope = gradient_of_attention(layers[index], gradients[index], rows, weights.dtype)
        return (weights * slope).clamp_min(0).mean(dim=1)

    with torch.no_grad(), torch.autocast(logit.device.type, enabled=False):
        return chain_rows(layers, matrix_of, normalized=False)
