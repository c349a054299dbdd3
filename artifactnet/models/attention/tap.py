"""Recording what goes through the attention of every block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from artifactnet.models.attention.fused import (
    FusedBackwardState,
    can_fuse,
    can_use_fused_backward,
    fused_attention,
)


@dataclass(slots=True)
class AttentionLayer:
    """What one block's attention worked on: q, k, v (B, H, N, d) and its output (B, H, N, d)."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    out: torch.Tensor
    scale: float
    bias: torch.Tensor | None = None  # added to the scores, broadcastable to (B, H, N, N)
    log_sum_exp: torch.Tensor | None = None  # (B, H, N) float32 or wider, if the kernel gave it
    handle: torch.Tensor | None = None  # takes a row chain's gradient, see `fused`
    state: FusedBackwardState | None = None  # what the call's backwards do for gradient rollout

    def release_handle(self) -> None:
        """Leave handle and state to the chain that trains through them now: only one may.

        Further chains go through q, k and v themselves.
        """
        if torch.is_grad_enabled():
            self.handle = self.state = None


class AttentionTap(TorchFunctionMode):
    """Records q, k, v and the output of every fused attention call made inside its block.

    It intercepts `scaled_dot_product_attention` itself, so q/k norms and rotary positions are
    already applied, the block keeps its fused kernel, and no module, hook or flag is touched.

    Args:
        differentiable: make every output part of a graph even where all weights are frozen.
        fused: use `fused.fused_attention` where it can: same kernel and numbers, it keeps the
            log-sum-exp, but has no second derivative.
    """

    def __init__(self, differentiable: bool = False, fused: bool = True) -> None:
        super().__init__()
        self.layers: list[AttentionLayer] = []
        self._differentiable = differentiable
        self._fused = fused

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run ``func``; remember what went through it if it is attention."""
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        layer = self._attend(*args, **kwargs)
        if self._differentiable and not layer.out.requires_grad:
            layer.out.requires_grad_()
        self.layers.append(layer)
        return layer.out

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> AttentionLayer:
        """The call and its tensors (same signature as `scaled_dot_product_attention`)."""
        if is_causal or enable_gqa:
            raise ValueError("rollout needs plain self-attention, not causal or grouped-query")
        query, key, value = _as_autocast(query, key, value)
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        bias = attn_mask
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            bias = torch.zeros_like(attn_mask, dtype=query.dtype)
            bias = bias.masked_fill_(~attn_mask, float("-inf"))
        if self._fused and can_fuse(query, key, value, attn_mask, dropout_p):
            state = FusedBackwardState() if can_use_fused_backward(query) else None
            out, log_sum_exp, handle = fused_attention(query, key, value, scale, state)
            return AttentionLayer(query, key, value, out, scale, bias, log_sum_exp, handle, state)
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attn_mask, dropout_p=dropout_p, scale=scale
        )
        return AttentionLayer(query, key, value, out, scale, bias)


def _as_autocast(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Autocast's conversion of the arguments of attention, which a custom call must do itself."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind) or tensors[0].dtype == torch.float64:
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors)
