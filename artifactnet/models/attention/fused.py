"""Fused attention that keeps its log-sum-exp and lets a row chain's gradient ride along.

The gradient that a row chain sends to the attention weights of head h has rank one,
dP_h = u g^T / H, so it needs no pass of its own: the fused backward gets one more column in the
values (g / H), in the gradient of the output (u) and in the output (P_h g / H). Then
dO' v'^T = dO v^T + u g^T / H, the row sums of dO' * O' are right as well, and dq and dk come out
with both contributions. The extra columns of dv are dropped.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from artifactnet.models.attention.gradient_tiles import Inputs
from artifactnet.models.attention.ride import Ride, attention_backward

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
    q: Tensor, k: Tensor, v: Tensor, scale: float, ride: Ride | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """softmax(scale q k^T) v by the library's fused kernel.

    Args:
        q, k, v: (B, H, N, d), see `can_fuse`.
        scale: of the scores.
        ride: what to do for gradient rollout in its backwards; read when they run.

    Returns:
        output (B, H, N, d); log-sum-exp of the scores (B, H, N), float32 or wider, without
        graph; and the handle: (B, H + 2, N) zeros without storage, whose *gradient* carries a
        row chain's weights u (B, 1, N), values g (B, 1, N) and products P_h g (B, H, N) into
        the backward of this call. A message of ``ride`` takes their place; then the gradient is
        zeros. One chain may use a handle: rank-one gradients of two do not add.
    """
    output: tuple[Tensor, Tensor, Tensor] = _FusedAttention.apply(q, k, v, scale, ride)
    return output


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, ride: Ride | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        state: tuple[Any, ...] = ()
        if q.device.type == "cpu":
            out, log_sum_exp = _CPU(q, k, v, scale=scale)
        else:
            out, log_sum_exp, *rest = _CUDA(q, k, v, scale=scale)
            # cumulative lengths, longest lengths, state of the random numbers
            state = (*rest[:4], 0.0, False, *rest[4:6])
        ctx.save_for_backward(q, k, v, out, log_sum_exp)
        ctx.scale, ctx.state, ctx.ride = scale, state, ride
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
        ride = ctx.ride
        if ride is not None and d_handle is None:
            ride.message = None  # left by a backward that ended above this block
        if ride is not None and (ride.collect or ride.message is not None):
            # the handle's gradient is empty here: it only made sure that the message came first
            inputs = Inputs(q, k, v, d_out, log_sum_exp, ctx.scale)
            return *attention_backward(inputs, ride), None, None
        size = q.shape[-1]
        if d_handle is not None:
            d_out, q, k, v, out = _with_rank_one(d_out, q, k, v, out, d_handle)
        if q.device.type == "cpu":
            found = _CPU_BACKWARD(d_out, q, k, v, out, log_sum_exp, 0.0, False, scale=ctx.scale)
        else:
            found = _CUDA_BACKWARD(d_out, q, k, v, out, log_sum_exp, *ctx.state, scale=ctx.scale)
        d_q, d_k, d_v = (gradient[..., :size] for gradient in found[:3])
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
