"""Rollouts without storing N x N matrices: the class row is pushed down, its gradient up.

Standard rollout (Abnar & Zuidema 2020, the class row alone): u = r / 2, r <- u + u^T mean_h P_h.
Backward, for g = dL/dr of the lower block: dL/du = g + mean_h P_h g, dL/dr = (dL/du) / 2, and
dP_h = u g^T / H. Kept are q, k, the log-sum-exp and two vectors per block.

Gradient rollout is the same with W (`gradient_tiles`) in place of the mean. dO may be a constant
(first order) or carry a graph of its own (second order, exact); q, k and v carry gradient in both.
Kept are also v and dO, and W while it takes no more than q, k, v and dO (N <= 4 H d), so memory is
linear in N.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from artifactnet.models.attention.fused import MatrixGradient
from artifactnet.models.attention.gradient_tiles import (
    AttentionInputs,
    fused_row,
    fused_row_backward,
)
from artifactnet.models.attention.products import log_sum_exp_of, products_for
from artifactnet.models.attention.tap import AttentionLayer
from artifactnet.models.attention.tiles import pad_queries

_MEAN_INPUTS = 3  # tensors per block that can carry gradient: q, k, handle
_MEAN_KEPT = 4  # q, k, the log-sum-exp and the row that enters the block from above
_GRADIENT_INPUTS = 5  # q, k, v, dO, and the handle of a block with a fused-backward state
_GRADIENT_KEPT = 8  # q, k, v, dO, the log-sum-exp, the row, its sums, and W or None


def mean_row(layers: Sequence[AttentionLayer], triton: bool = False) -> Tensor:
    """Class row of A_L ... A_1 with A = (mean_h P_h + I) / 2.

    The gradient reaches queries and keys: through a block's handle where the tap made its
    attention call (`fused`), otherwise through q and k themselves.

    Args:
        layers: the blocks' attention without bias, first block first.
        triton: see `products_for`.

    Returns:
        (B, N), float32 or wider.
    """
    tensors: list[Tensor | None] = []
    for layer in layers:
        through_handle = layer.handle is not None
        q, k = (layer.q.detach(), layer.k.detach()) if through_handle else (layer.q, layer.k)
        tensors += [q, k, layer.handle]
        layer.release_handle()
    known = [layer.log_sum_exp for layer in layers]
    row: Tensor = _MeanChain.apply(known, [layer.scale for layer in layers], triton, *tensors)
    return row


class _MeanChain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, known: Any, scales: Any, triton: bool, *tensors: Any) -> Tensor:
        kept: list[Tensor] = []  # last block first
        row = None
        for index in range(len(scales) - 1, -1, -1):
            q, k, _ = tensors[_MEAN_INPUTS * index :][:_MEAN_INPUTS]
            if row is None:  # all weight is on the class token yet
                q = q[:, :, :1]
            log_sum_exp = log_sum_exp_of(q, k, scales[index], known[index], triton)
            if row is None:
                row = log_sum_exp.new_ones(q.shape[0], 1)
            kept += [q, k, log_sum_exp, row]
            half = row / 2
            row = products_for(q, k, triton).row_product(q, k, log_sum_exp, half, scales[index])
            row[:, : half.shape[1]] += half
        assert row is not None
        ctx.save_for_backward(*kept)
        ctx.scales, ctx.triton = scales, triton
        return row

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        blocks = len(ctx.scales)
        gradients: list[Tensor | None] = [None] * 3
        with torch.autocast(gradient.device.type, enabled=False):
            for index in range(blocks):
                place = (blocks - 1 - index) * _MEAN_KEPT
                q, k, log_sum_exp, row = ctx.saved_tensors[place:][:_MEAN_KEPT]
                products, scale = products_for(q, k, ctx.triton), ctx.scales[index]
                product = products.column_product(q, k, log_sum_exp, gradient, scale)
                needs = ctx.needs_input_grad[3 + _MEAN_INPUTS * index :][:_MEAN_INPUTS]
                if needs[2]:
                    gradients += [None, None, _handle_gradient(row / 2, gradient, product)]
                elif needs[0] or needs[1]:
                    d_q, d_k = products.rank_one_backward(
                        q, k, log_sum_exp, row / 2, gradient, product, scale
                    )
                    gradients += [pad_queries(d_q, k.shape[2] - q.shape[2]), d_k, None]
                else:
                    gradients += [None, None, None]
                gradient = (gradient[:, : row.shape[1]] + product.mean(dim=1)) / 2
        return tuple(gradients)


def _handle_gradient(weights: Tensor, values: Tensor, product: Tensor) -> Tensor:
    """The gradient of a handle: u, g and P_h g, (B, H + 2, N)."""
    queries = weights.shape[1]
    packed = product.new_zeros(product.shape[0], product.shape[1] + 2, values.shape[1])
    packed[:, 0, :queries] = weights
    packed[:, 1] = values
    packed[:, 2:, :queries] = product
    return packed


@contextmanager
def collecting(layers: Sequence[AttentionLayer]) -> Iterator[None]:
    """Inside, the backwards of blocks with a fused-backward state keep W for `weighted_row`.

    Not that of the first block, whose backward dO does not need, nor of the last, of which one
    row is needed.
    """
    states = [layer.state for layer in layers[1:-1] if layer.state is not None]
    for state in states:
        state.collect = True
    try:
        yield
    finally:
        for state in states:
            state.collect = False


def weighted_row(
    layers: Sequence[AttentionLayer], d_outs: Sequence[Tensor], triton: bool = False
) -> Tensor:
    """Class row of A_L ... A_1 with A = (W + I) / (1 + W 1), W = max(0, mean_h P_h * dO_h v_h^T).

    Args:
        layers, triton: see `mean_row`.
        d_outs: dO (B, H, N, d) of each layer.

    Returns:
        (B, N), float32 or wider.
    """
    tensors: list[Tensor | None] = []
    states = []
    for layer, d_out in zip(layers, d_outs, strict=True):
        last = layer is layers[-1]
        alone = last or d_out.requires_grad or layer.handle is None
        states.append(None if alone else layer.state)
        inputs = (layer.q, layer.k, layer.v)
        if states[-1] is None:
            tensors += [*inputs, d_out, None]
        else:  # the gradient takes the way of the attention call itself
            tensors += [*(x.detach() for x in inputs), d_out, layer.handle]
            layer.release_handle()
    scales = [layer.scale for layer in layers]
    known = [layer.log_sum_exp for layer in layers]
    keep = torch.is_grad_enabled()
    row: Tensor = _GradientChain.apply(scales, known, states, keep, triton, *tensors)
    return row


class _GradientChain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scales: Any, known: Any, states: Any, keep: bool, triton: bool, *tensors: Any
    ) -> Tensor:
        kept: list[Tensor | None] = []  # last block first
        row = None
        for index in range(len(scales) - 1, -1, -1):
            q, k, v, d_out, _ = tensors[_GRADIENT_INPUTS * index :][:_GRADIENT_INPUTS]
            if row is None:  # all weight is on the class token yet
                q, d_out = q[:, :, :1], d_out[:, :, :1]
            log_sum_exp = log_sum_exp_of(q, k, scales[index], known[index], triton)
            if row is None:
                row = log_sum_exp.new_ones(q.shape[0], 1)
            state = states[index]
            if state is not None and state.matrix is not None:
                matrix, state.matrix = state.matrix, None
                sums = 1 + matrix.sum(dim=-1)
                share = row / sums
                below = share + torch.bmm(share[:, None], matrix)[:, 0]
            else:
                inputs = AttentionInputs(q, k, v, d_out, log_sum_exp, scales[index])
                below, sums, matrix = fused_row(inputs, row, keep)
            kept += [q, k, v, d_out, log_sum_exp, row, sums, matrix]
            row = below
        ctx.scales, ctx.states = scales, states
        ctx.save_for_backward(*kept)
        assert row is not None
        return row

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        blocks, saved = len(ctx.scales), ctx.saved_tensors
        gradients: list[Tensor | None] = [None] * 5
        with torch.autocast(gradient.device.type, enabled=False):
            for index in range(blocks):
                kept = saved[(blocks - 1 - index) * _GRADIENT_KEPT :][:_GRADIENT_KEPT]
                q, k, v, d_out, log_sum_exp, row, sums, matrix = kept
                needs = ctx.needs_input_grad[5 + _GRADIENT_INPUTS * index :][:_GRADIENT_INPUTS]
                if ctx.states[index] is not None:
                    slope = (gradient + torch.bmm(matrix, gradient[..., None])[..., 0]) / sums
                    share = row / sums / q.shape[1]
                    handle = None
                    if needs[4]:
                        pending = MatrixGradient(matrix, d_out, share, gradient, slope)
                        ctx.states[index].pending = pending
                        handle = gradient.new_zeros(()).expand(len(q), q.shape[1] + 2, k.shape[2])
                    gradients += [None, None, None, None, handle]
                    gradient = slope
                    continue
                inputs = AttentionInputs(q, k, v, d_out, log_sum_exp, ctx.scales[index])
                new = fused_row_backward(
                    inputs, row, sums, matrix, gradient, through_d_out=needs[3]
                )
                missing = gradient.shape[1] - row.shape[1]  # queries without weight in the last
                d_d_out = None if new.d_out is None else pad_queries(new.d_out, missing)
                gradients += [pad_queries(new.q, missing), new.k, new.v, d_d_out, None]
                gradient = new.row
        return tuple(gradients)
