"""Gradient rollout without G and P of any head: the class row pushed down, its gradient up.

dO may be a constant (first order) or carry a graph of its own (second order, exact); q, k and v
carry gradient in both. Kept are q, k, v, dO, the log-sum-exp and two vectors per block, and W while
it takes no more than these (N <= 4 H d), so memory is linear in N.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from artifactnet.models.attention.fused import Message
from artifactnet.models.attention.gradient_tiles import (
    AttentionInputs,
    fused_row,
    fused_row_backward,
)
from artifactnet.models.attention.products import sums_of
from artifactnet.models.attention.tap import AttentionLayer
from artifactnet.models.attention.tiles import pad_queries

_FIRST = 4  # arguments before the blocks' tensors
_INPUTS = 5  # tensors per block: q, k, v, dO, and the handle of a block that rides
_KEPT = 8  # q, k, v, dO, the log-sum-exp, the row, its sums, and W or None


@contextmanager
def collecting(layers: Sequence[AttentionLayer]) -> Iterator[None]:
    """Inside, the backwards of blocks that can ride (`ride`) keep W for `weighted_row`.

    Not of the first block, whose backward dO does not need, nor of the last, of which one row is
    needed.

    Args:
        layers: that will be given to `weighted_row`.
    """
    asked = [layer.ride for layer in layers[1:-1] if layer.ride is not None]
    for ride in asked:
        ride.collect = True
    try:
        yield
    finally:
        for ride in asked:
            ride.collect = False


def weighted_row(layers: Sequence[AttentionLayer], d_outs: Sequence[Tensor]) -> Tensor:
    """Class row of A_L ... A_1 with A = (W + I) / (1 + W 1), W = max(0, mean_h P_h * dO_h v_h^T).

    Args:
        layers: the blocks' attention without bias, first block first.
        d_outs: dO (B, H, N, d) of each.

    Returns:
        (B, N), float32 or wider.
    """
    tensors: list[Tensor | None] = []
    rides = []
    for layer, d_out in zip(layers, d_outs, strict=True):
        last = layer is layers[-1]
        alone = last or d_out.requires_grad or layer.handle is None
        rides.append(None if alone else layer.ride)
        inputs = (layer.q, layer.k, layer.v)
        if rides[-1] is None:
            tensors += [*inputs, d_out, None]
        else:  # the gradient takes the way of the attention call itself
            tensors += [*(x.detach() for x in inputs), d_out, layer.handle]
            layer.take()
    scales = [layer.scale for layer in layers]
    known = [layer.log_sum_exp for layer in layers]
    keep = torch.is_grad_enabled()
    row: Tensor = _GradientChain.apply(scales, known, rides, keep, *tensors)
    return row


class _GradientChain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scales: Any, known: Any, rides: Any, keep: bool, *tensors: Any) -> Tensor:
        kept: list[Tensor | None] = []  # last block first
        row = None
        for index in range(len(scales) - 1, -1, -1):
            q, k, v, d_out, _ = tensors[_INPUTS * index :][:_INPUTS]
            if row is None:  # all weight is on the class token yet
                q, d_out = q[:, :, :1], d_out[:, :, :1]
            log_sum_exp = sums_of(q, k, scales[index], known[index])
            if row is None:
                row = log_sum_exp.new_ones(q.shape[0], 1)
            ride = rides[index]
            if ride is not None and ride.matrix is not None:
                matrix, ride.matrix = ride.matrix, None
                sums = 1 + matrix.sum(dim=-1)
                share = row / sums
                below = share + torch.bmm(share[:, None], matrix)[:, 0]
            else:
                inputs = AttentionInputs(q, k, v, d_out, log_sum_exp, scales[index])
                below, sums, matrix = fused_row(inputs, row, keep)
            kept += [q, k, v, d_out, log_sum_exp, row, sums, matrix]
            row = below
        ctx.save_for_backward(*kept)
        ctx.scales, ctx.rides = scales, rides
        assert row is not None
        return row

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(gradient.device.type, enabled=False):
            return _push_up(ctx, gradient)


def _push_up(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    blocks = len(ctx.scales)
    saved = ctx.saved_tensors
    found: list[Tensor | None] = []
    for index in range(blocks):
        kept = saved[(blocks - 1 - index) * _KEPT :][:_KEPT]
        q, k, v, d_out, log_sum_exp, row, sums, matrix = kept
        needs = ctx.needs_input_grad[_FIRST + _INPUTS * index :][:_INPUTS]
        if ctx.rides[index] is not None:
            slope = (gradient + torch.bmm(matrix, gradient[..., None])[..., 0]) / sums
            share = row / sums / q.shape[1]
            handle = None
            if needs[4]:
                ctx.rides[index].message = Message(matrix, d_out, share, gradient, slope)
                handle = gradient.new_zeros(()).expand(len(q), q.shape[1] + 2, k.shape[2])
            found += [None, None, None, None, handle]
            gradient = slope
            continue
        inputs = AttentionInputs(q, k, v, d_out, log_sum_exp, ctx.scales[index])
        new = fused_row_backward(inputs, row, sums, matrix, gradient, through_d_out=needs[3])
        missing = gradient.shape[1] - row.shape[1]  # queries without weight in the last block
        d_d_out = None if new.d_out is None else pad_queries(new.d_out, missing)
        found += [pad_queries(new.q, missing), new.k, new.v, d_d_out, None]
        gradient = new.row
    return (*(None,) * _FIRST, *found)
