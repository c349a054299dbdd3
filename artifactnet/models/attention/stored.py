"""Rollout by whole attention matrices: the form that supports every option.

Under autograd every block's matrix stays in memory, as in public scripts; without a graph only a
band of rows. `chains` needs neither where heads are averaged and nothing is discarded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from artifactnet.models.attention.tap import AttentionLayer
from artifactnet.models.attention.tiles import cut

_BAND_ELEMENTS = 1 << 20  # per image: what a processor keeps close


def attention_weights(layer: AttentionLayer, rows: slice = slice(None)) -> torch.Tensor:
    """Attention probabilities softmax(s q k^T) of M queries, without dropout.

    Returns:
        (B, H, M, N), float32 or wider.
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
    """Zero the weakest ``ratio``, in [0, 1), of each image's entries of (B, N, N) fused weights.

    The class token's own entry stays.
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
    return list(cut(tokens, step))


def gradient_of_attention(
    layer: AttentionLayer, gradient: torch.Tensor, rows: slice, dtype: torch.dtype
) -> torch.Tensor:
    """d logit / d P_h = dO_h v_h^T of some rows, (B, H, M, N); exact, and cheaper than asking
    autograd, because P itself never has to exist in the forward pass."""
    return gradient[:, :, rows].to(dtype) @ layer.v.to(dtype).transpose(-2, -1)
