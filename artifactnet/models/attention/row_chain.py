"""Standard rollout without N x N storage: the class row pushed down, its gradient pushed up.

Down (Abnar & Zuidema 2020, the class row alone): u = r / 2, r <- u + u^T mean_h P_h.
Up, for g = dL/dr of the lower block: dL/du = g + mean_h P_h g, dL/dr = (dL/du) / 2, and
dP_h = u g^T / H. Kept are q, k, the log-sum-exp and two vectors per block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from artifactnet.models.attention.products import products_for, sums_of
from artifactnet.models.attention.tap import AttentionLayer
from artifactnet.models.attention.tiles import pad_queries

_INPUTS = 3  # tensors per block that can carry gradient: q, k, handle
_KEPT = 4  # q, k, the log-sum-exp and the row that enters the block from above


def mean_row(layers: Sequence[AttentionLayer]) -> Tensor:
    """Class row of A_L ... A_1 with A = (mean_h P_h + I) / 2.

    The gradient reaches queries and keys: through a block's handle where the tap made its
    attention call (`fused`), else through q and k themselves.

    Args:
        layers: the blocks' attention without bias, first block first.

    Returns:
        (B, N), float32 or wider.
    """
    tensors: list[Tensor | None] = []
    for layer in layers:
        through_handle = layer.handle is not None
        q, k = (layer.q.detach(), layer.k.detach()) if through_handle else (layer.q, layer.k)
        tensors += [q, k, layer.handle]
        layer.take()
    known = [layer.log_sum_exp for layer in layers]
    row: Tensor = _RowChain.apply(known, [layer.scale for layer in layers], *tensors)
    return row


class _RowChain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        known: Sequence[Tensor | None],
        scales: Sequence[float],
        *tensors: Any,
    ) -> Tensor:
        kept: list[Tensor] = []  # last block first
        row = None
        for index in range(len(scales) - 1, -1, -1):
            q, k, _ = tensors[_INPUTS * index :][:_INPUTS]
            if row is None:  # all weight is on the class token yet
                q = q[:, :, :1]
            log_sum_exp = sums_of(q, k, scales[index], known[index])
            if row is None:
                row = log_sum_exp.new_ones(q.shape[0], 1)
            kept += [q, k, log_sum_exp, row]
            half = row / 2
            row = products_for(q, k).row_product(q, k, log_sum_exp, half, scales[index])
            row[:, : half.shape[1]] += half
        ctx.save_for_backward(*kept)
        ctx.scales = scales
        assert row is not None
        return row

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(gradient.device.type, enabled=False):
            return _push_up(ctx, gradient)


def _push_up(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    blocks = len(ctx.scales)
    found: list[Tensor | None] = []
    for index in range(blocks):
        q, k, log_sum_exp, row = ctx.saved_tensors[(blocks - 1 - index) * _KEPT :][:_KEPT]
        scale = ctx.scales[index]
        product = products_for(q, k).column_product(q, k, log_sum_exp, gradient, scale)
        needs = ctx.needs_input_grad[2 + _INPUTS * index :][:_INPUTS]
        if needs[2]:
            found += [None, None, _message(row / 2, gradient, product)]
        elif needs[0] or needs[1]:
            found += _gradients(q, k, log_sum_exp, row / 2, gradient, product, scale)
        else:
            found += [None, None, None]
        gradient = (gradient[:, : row.shape[1]] + product.mean(dim=1)) / 2
    return (None, None, *found)


def _message(weights: Tensor, values: Tensor, product: Tensor) -> Tensor:
    """The gradient of a handle: u, g and P_h g, (B, H + 2, N)."""
    queries = weights.shape[1]
    message = product.new_zeros(product.shape[0], product.shape[1] + 2, values.shape[1])
    message[:, 0, :queries] = weights
    message[:, 1] = values
    message[:, 2:, :queries] = product
    return message


def _gradients(
    q: Tensor,
    k: Tensor,
    log_sum_exp: Tensor,
    weights: Tensor,
    values: Tensor,
    product: Tensor,
    scale: float,
) -> list[Tensor | None]:
    """Of q and k of one block, and none of a handle."""
    d_q, d_k = products_for(q, k).rank_one_backward(
        q, k, log_sum_exp, weights, values, product, scale
    )
    return [pad_queries(d_q, k.shape[2] - q.shape[2]), d_k, None]
