"""Attention Rollout and Gradient Attention Rollout: where the class token looks.

Both multiply the attention matrices of all blocks (Abnar & Zuidema 2020; Gildenblat 2020):
with M_l the head-fused matrix of block l,

    A_l = (M_l + I) / (1 + row sums of M_l),      map = class row of A_L A_{L-1} ... A_1.

Standard rollout takes M = fused softmax(s q k^T); gradient rollout takes
M = max(0, mean_h P_h * G_h) with G_h = d logit / d P_h = dO_h v_h^T, where dO is the gradient
of the fake logit with respect to the attention output.

Only the class token's row is wanted, so a *row vector* is propagated from the last block
down: O(N^2) per block instead of the O(N^3) of a matrix product, and no product is stored.
Maps are computed in float32 (float64 for float64 models), whatever the model runs in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

NORMALIZATIONS = ("saturate", "max", "minmax", "none")
_BAND_ELEMENTS = 1 << 20  # per image: what a processor keeps close


@dataclass(slots=True)
class AttentionLayer:
    """What one block's attention worked on: q, k, v (B, H, N, d) and its output (B, H, N, d)."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    out: torch.Tensor
    scale: float
    bias: torch.Tensor | None = None  # added to the scores, broadcastable to (B, H, N, N)


class AttentionTap(TorchFunctionMode):
    """Records q, k, v and the output of every fused attention call made inside its block.

    It listens at `scaled_dot_product_attention` itself, so q/k norms and rotary positions are
    already applied, the block keeps its fused kernel, and no module, hook or flag is touched.

    Args:
        differentiable: make every output part of a graph even where all weights are frozen
            (needed for gradients with respect to it).
    """

    def __init__(self, differentiable: bool = False) -> None:
        super().__init__()
        self.layers: list[AttentionLayer] = []
        self._differentiable = differentiable

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run ``func`` unchanged; remember what went through it if it is attention."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            if self._differentiable and not out.requires_grad:
                out.requires_grad_()
            self.layers.append(_layer_of_call(out, *args, **kwargs))
        return out


def _layer_of_call(
    out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionLayer:
    """The call's tensors (same signature as `scaled_dot_product_attention`)."""
    if is_causal or enable_gqa:
        raise ValueError("rollout needs plain self-attention, not causal or grouped-query")
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(
            ~attn_mask, float("-inf")
        )
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return AttentionLayer(query, key, value, out, scale, attn_mask)


def attention_weights(layer: AttentionLayer, rows: slice = slice(None)) -> torch.Tensor:
    """Attention probabilities softmax(s q k^T), without dropout.

    Args:
        layer: one recorded block.
        rows: compute these queries' rows alone.

    Returns:
        (B, H, M, N), M the number of ``rows``; float32 or wider.
    """
    dtype = torch.promote_types(layer.q.dtype, torch.float32)
    scores = layer.q[:, :, rows].to(dtype) @ layer.k.to(dtype).transpose(-2, -1) * layer.scale
    if layer.bias is not None:
        bias = layer.bias.to(dtype)
        scores = scores + (bias if bias.shape[-2] == 1 else bias[..., rows, :])
    return scores.softmax(dim=-1)


def fuse_heads(weights: torch.Tensor, how: str) -> torch.Tensor:
    """Fuse (B, H, M, N) over heads to (B, M, N) by ``mean``, ``max`` or ``min``."""
    if how == "mean":
        return weights.mean(dim=1)
    if how == "max":
        return weights.amax(dim=1)
    if how == "min":
        return weights.amin(dim=1)
    raise ValueError(f"head fusion must be mean, max or min, not {how!r}")


def discard_weakest(matrix: torch.Tensor, ratio: float) -> torch.Tensor:
    """Zero the weakest ``ratio`` of each image's entries; the class token's own entry stays.

    Args:
        matrix: (B, N, N) fused weights.
        ratio: share in [0, 1).
    """
    count = int(matrix[0].numel() * ratio)
    if count == 0:
        return matrix
    flat = matrix.flatten(1)
    weakest = flat.topk(count, dim=1, largest=False).indices
    keep = torch.ones_like(flat, dtype=torch.bool).scatter_(1, weakest, False)
    keep[:, 0] = True
    return (flat * keep).view_as(matrix)


def chain_rows(
    layers: Sequence[AttentionLayer],
    matrix_of: Callable[[int, slice], torch.Tensor],
    normalized: bool,
    discard_ratio: float = 0.0,
) -> torch.Tensor:
    """Class token's row of a product of (I + M_l), last block to first.

    Without a graph only a band of rows of one M_l exists at a time, so memory does not grow
    with N^2.

    Args:
        layers: the blocks' attention, first block first.
        matrix_of: block's position in ``layers`` and rows -> (B, rows, N) of M_l.
        normalized: divide each row of (I + M_l) by its sum.
        discard_ratio: see `discard_weakest`.

    Returns:
        (B, N), float32 or wider.
    """
    reference = layers[-1].q
    batch, _, tokens, _ = reference.shape
    dtype = torch.promote_types(reference.dtype, torch.float32)
    row = torch.zeros(batch, tokens, dtype=dtype, device=reference.device)
    row[:, 0] = 1.0
    for index in range(len(layers) - 1, -1, -1):
        bands = _bands(layers[index], discard_ratio)
        if index == len(layers) - 1 and discard_ratio == 0:
            bands = [slice(0, 1)]  # all weight is on the class token yet
        kept, added = [], torch.zeros_like(row)
        for band in bands:
            matrix = discard_weakest(matrix_of(index, band), discard_ratio)
            share = row[:, band]
            if normalized:
                share = share / (1 + matrix.sum(dim=-1))
            kept.append(share)
            added = added + torch.bmm(share[:, None], matrix)[:, 0]
        row = torch.cat([*kept, row[:, bands[-1].stop :]], dim=1) + added
    return row


def _bands(layer: AttentionLayer, discard_ratio: float) -> list[slice]:
    """Rows of a block's matrix that are in memory together."""
    _, heads, tokens, _ = layer.q.shape
    # a graph keeps every band anyway, and the weakest entries are sought in the whole matrix
    if discard_ratio or torch.is_grad_enabled():
        return [slice(0, tokens)]
    step = max(1, _BAND_ELEMENTS // (heads * tokens))
    return [slice(start, min(start + step, tokens)) for start in range(0, tokens, step)]


def attention_rollout(
    layers: Sequence[AttentionLayer],
    *,
    head_fusion: str = "mean",
    discard_ratio: float = 0.0,
    start_layer: int = 0,
) -> torch.Tensor:
    """Class token's row of standard Attention Rollout (Abnar & Zuidema 2020).

    Args:
        layers: the blocks' attention, first block first.
        head_fusion: ``mean``, ``max`` or ``min``.
        discard_ratio: share of the weakest fused weights dropped per block and image.
        start_layer: first block that takes part.

    Returns:
        (B, N) over all tokens, prefix tokens included; non-negative, each row sums to 1.

    Raises:
        ValueError: no block is left, or ``head_fusion`` is unknown.
    """
    layers = _chosen(layers, start_layer)

    def matrix_of(index: int, rows: slice) -> torch.Tensor:
        return fuse_heads(attention_weights(layers[index], rows), head_fusion)

    with _no_autocast(layers[0].q):
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
) -> torch.Tensor:
    """Class token's row of Gradient Attention Rollout (Gildenblat 2020; X-AIGD Sec. 6.1).

    Args:
        logit: (B,) logits of the fake class; a sample's logit must depend on that sample alone.
        layers: the blocks' attention, recorded in the forward pass that gave ``logit``.
        head_fusion: ``mean``, ``max`` or ``min`` of P * G over heads.
        discard_ratio: share of the weakest fused weights dropped per block and image.
        start_layer: first block that takes part.
        second_order: with ``create_graph``, also differentiate through the gradient dO. If
            False, dO is a constant while q, k and v carry gradient (one more backward only).
        create_graph: the map will be differentiated.

    Returns:
        (B, N) over all tokens; non-negative, each row sums to 1.
    """
    layers = _chosen(layers, start_layer)
    exact = create_graph and second_order
    gradients = output_gradients(logit, layers, exact)

    def matrix_of(index: int, rows: slice) -> torch.Tensor:
        weights = attention_weights(layers[index], rows)
        slope = gradient_of_attention(layers[index], gradients[index], rows, weights.dtype)
        return fuse_heads(weights * slope, head_fusion).clamp_min(0)

    with _no_autocast(logit), torch.set_grad_enabled(create_graph):
        return chain_rows(layers, matrix_of, True, discard_ratio)


def output_gradients(
    logit: torch.Tensor, layers: Sequence[AttentionLayer], create_graph: bool = False
) -> tuple[torch.Tensor, ...]:
    """Gradient dO (B, H, N, d) of each image's logit with respect to each attention output."""
    outputs = [layer.out for layer in layers]
    return torch.autograd.grad(logit.sum(), outputs, create_graph=create_graph, retain_graph=True)


def gradient_of_attention(
    layer: AttentionLayer, gradient: torch.Tensor, rows: slice, dtype: torch.dtype
) -> torch.Tensor:
    """d logit / d P_h = dO_h v_h^T of some rows, (B, H, M, N); exact, and cheaper than asking
    autograd, because P itself never has to exist in the forward pass."""
    return gradient[:, :, rows].to(dtype) @ layer.v.to(dtype).transpose(-2, -1)


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

    Returns:
        (B, h, w) in [0, 1].
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
    if not 0 <= start_layer < len(layers):
        raise ValueError(f"start_layer {start_layer} leaves none of {len(layers)} blocks")
    return layers[start_layer:]


def _no_autocast(reference: torch.Tensor) -> torch.autocast:
    return torch.autocast(reference.device.type, enabled=False)
