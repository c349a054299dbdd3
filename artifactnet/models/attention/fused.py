"""Fused attention that keeps its log-sum-exp and adds a rollout's gradient in its own backward.

Standard rollout: the gradient of the attention weights of head h has rank one, dP_h = u g^T / H,
so it needs no pass of its own. g / H is appended as an extra value column to the fused attention
backward, u to the gradient of the output, and P_h g / H to the output. Then
dO' v'^T = dO v^T + u g^T / H, the row sums of dO' * O' are right as well, and dq and dk come out
with both contributions. The extra columns of dv are dropped.

Gradient rollout, on a CPU: a `FusedBackwardState` makes the backward of a call keep W, or add the
gradient of W that a chain has left there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from artifactnet.models.attention.gradient_tiles import (
    SOFTMAX_BACKWARD,
    AttentionInputs,
    Block,
    matrix_gradient,
)
from artifactnet.models.attention.tiles import as_pairs, like


class MatrixGradient(NamedTuple):
    """dL/dW of a block, W > 0: share_i (target_j - slope_i); see `fused_row_backward`."""

    matrix: Tensor  # W (B, N, N)
    d_out: Tensor  # dO of the logit (B, H, N, d), a constant
    share: Tensor  # u / H (B, N)
    target: Tensor  # g (B, N)
    slope: Tensor  # t (B, N)

    def of(self, images: slice, rows: slice) -> Tensor:
        """dL/dW / H of some rows, see `matrix_gradient`."""
        matrix, share = self.matrix[images, rows], self.share[images, rows]
        return matrix_gradient(matrix, share, self.target[images], self.slope[images, rows])


@dataclass(slots=True)
class FusedBackwardState:
    """What the next backward of one attention call does for gradient rollout."""

    collect: bool = False  # keep W of the gradient that arrives
    matrix: Tensor | None = None  # W (B, N, N), once collected
    pending: MatrixGradient | None = None  # to add; cleared by the backward that adds it


def can_use_fused_backward(q: Tensor) -> bool:
    """Whether keeping W (B, N, N) is worth it for q (B, H, N, d): on a CPU, in float32 or wider, if
    it takes no more than q, k, v and dO (N <= 4 H d)."""
    _, heads, tokens, size = q.shape
    return q.device.type == "cpu" and q.dtype.itemsize >= 4 and tokens <= 4 * heads * size


def attention_backward(
    inputs: AttentionInputs, state: FusedBackwardState
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of softmax(scale q k^T) v with respect to q, k and v.

    ``inputs.d_out`` is whatever gradient arrives at the output. A pending gradient of ``state`` is
    added and cleared; otherwise its W is collected, if it is set to.
    """
    q, k, v, _, _, scale = inputs
    block = Block(inputs)
    pending, state.pending = state.pending, None
    if pending is None and state.collect:
        state.matrix = block.left.new_empty(len(q), q.shape[2], k.shape[2])
    logit_d_out = as_pairs(pending.d_out) if pending is not None else None
    plain_q, plain_k = block.plain()
    values = block.values.transpose(1, 2)
    d_q, d_k, d_v = (torch.zeros_like(x) for x in (block.d_out, block.values, block.values))
    for images, rows, groups in block.parts():
        d_matrix = pending.of(images, rows) if pending is not None else None
        for pairs in groups:
            weights, slopes = block.tile(pairs, rows, logit_d_out)
            by_image = (images.stop - images.start, -1, *weights.shape[1:])
            x = block.spare[: weights.numel()].view_as(weights)
            if d_matrix is not None and logit_d_out is not None:
                torch.mul(weights.view(by_image), d_matrix, out=x.view(by_image))
                d_v[pairs].baddbmm_(x.transpose(1, 2), logit_d_out[pairs, rows])
                slopes.view(by_image).mul_(d_matrix)
                slopes.baddbmm_(block.d_out[pairs, rows], values[pairs])
            elif state.collect:
                block.add(weights, slopes, pairs is groups[0])
            d_v[pairs].baddbmm_(weights.transpose(1, 2), block.d_out[pairs, rows])
            d_scores = SOFTMAX_BACKWARD(slopes, weights, -1, weights.dtype, grad_input=slopes)
            d_q[pairs, rows] = torch.bmm(d_scores, plain_k[pairs])
            d_k[pairs].baddbmm_(d_scores.transpose(1, 2), plain_q[pairs, rows])
        if pending is None and state.matrix is not None:
            block.fuse(images, rows, state.matrix[images, rows])
    return like(q, d_q.mul_(scale)), like(k, d_k), like(v, d_v)


_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_CPU_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_CUDA = torch.ops.aten._scaled_dot_product_flash_attention
_CUDA_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_backward
_EXTRA = 8  # columns added: kernels want head sizes that are multiples of 8
_LARGEST_HEAD = 248  # with the extra columns the kernels' 256


def can_fuse(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> bool:
    """Whether `fused_attention` takes a call: self-attention without mask or dropout, on a CPU
    in any floating type, on a GPU in half precision (its flash kernel has no other)."""
    if mask is not None or dropout or not q.shape == k.shape == v.shape or q.dim() != 4:
        return False
    if not q.dtype == k.dtype == v.dtype or min(q.shape) == 0:
        return False
    if q.shape[-1] > _LARGEST_HEAD or q.shape[-1] % 8:
        return False
    if q.device.type == "cpu":
        return q.is_floating_point()
    if q.device.type != "cuda" or q.dtype not in (torch.float16, torch.bfloat16):
        return False
    return torch.backends.cuda.flash_sdp_enabled() and (
        torch.cuda.get_device_capability(q.device) >= (8, 0)
    )


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, fused_backward: FusedBackwardState | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """softmax(scale q k^T) v by the library's fused kernel.

    Args:
        q, k, v: (B, H, N, d), see `can_fuse`.
        scale: of the scores.
        fused_backward: what its backwards do for gradient rollout; read when they run.

    Returns:
        output (B, H, N, d); log-sum-exp of the scores (B, H, N), float32 or wider, without graph;
        and the handle: (B, H + 2, N) zeros without storage, whose *gradient* carries a row chain's
        weights u (B, 1, N), values g (B, 1, N) and products P_h g (B, H, N) into the backward of
        this call. A pending gradient of ``fused_backward`` takes their place; then the handle's
        gradient is zeros. Only one chain may use a handle: rank-one gradients of two do not add.
    """
    output: tuple[Tensor, Tensor, Tensor] = _FusedAttention.apply(q, k, v, scale, fused_backward)
    return output


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, fused_backward: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        flash: tuple[Any, ...] = ()
        if q.device.type == "cpu":
            out, log_sum_exp = _CPU(q, k, v, scale=scale)
        else:
            out, log_sum_exp, *rest = _CUDA(q, k, v, scale=scale)
            # cumulative lengths, longest lengths, state of the random numbers
            flash = (*rest[:4], 0.0, False, *rest[4:6])
        ctx.save_for_backward(q, k, v, out, log_sum_exp)
        ctx.scale, ctx.flash, ctx.fused_backward = scale, flash, fused_backward
        ctx.mark_non_differentiable(log_sum_exp)
        ctx.set_materialize_grads(False)
        batch, heads, tokens, _ = q.shape
        handle = log_sum_exp.new_zeros(()).expand(batch, heads + 2, tokens)
        return out, log_sum_exp, handle

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, d_out: Tensor | None, _: None, d_handle: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        q, k, v, out, log_sum_exp = ctx.saved_tensors
        if d_out is None and d_handle is None:
            return None, None, None, None, None
        if d_out is None:
            d_out = torch.zeros_like(out)
        state = ctx.fused_backward
        if state is not None and d_handle is None:
            state.pending = None  # left by a backward that ended above this block
        if state is not None and (state.collect or state.pending is not None):
            # the handle's gradient is empty here: it only ordered this after the chain's backward
            inputs = AttentionInputs(q, k, v, d_out, log_sum_exp, ctx.scale)
            return *attention_backward(inputs, state), None, None
        size = q.shape[-1]
        if d_handle is not None:
            d_out, q, k, v, out = _with_rank_one(d_out, q, k, v, out, d_handle)
        if q.device.type == "cpu":
            gradients = _CPU_BACKWARD(d_out, q, k, v, out, log_sum_exp, 0.0, False, scale=ctx.scale)
        else:
            gradients = _CUDA_BACKWARD(
                d_out, q, k, v, out, log_sum_exp, *ctx.flash, scale=ctx.scale
            )
        d_q, d_k, d_v = (gradient[..., :size] for gradient in gradients[:3])
        return d_q, d_k, d_v, None, None


def _with_rank_one(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, d_handle: Tensor
) -> tuple[Tensor, ...]:
    """The backward's arguments with the extra columns."""
    heads, size = q.shape[1], q.shape[-1]
    weights, values, products = d_handle[:, :1], d_handle[:, 1:2], d_handle[:, 2:]
    # dS depends on g_j - (P g)_i alone, so a common part of g would only cost digits
    center = values.mean(dim=-1, keepdim=True)
    values, products = (values - center) / heads, (products - center) / heads
    # half precision: both factors of the outer product at one magnitude, by a power of two
    tiny = torch.finfo(torch.float32).tiny
    largest = [factor.abs().amax(-1, keepdim=True).clamp_min(tiny) for factor in (weights, values)]
    balance = torch.exp2((torch.log2(largest[0]) - torch.log2(largest[1])).div(2).round())
    columns = (weights / balance, None, None, values * balance, products * balance)
    padded = []
    for tensor, column in zip((d_out, q, k, v, out), columns, strict=True):
        wider = F.pad(tensor, (0, _EXTRA))
        if column is not None:
            wider[..., size] = column.to(tensor.dtype)
        padded.append(wider)
    return tuple(padded)
