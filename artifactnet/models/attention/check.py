"""Whether every block's attention is of the form that a rollout multiplies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from artifactnet.models.attention.tap import AttentionLayer, AttentionTap


def refused_block(blocks: nn.ModuleList, tokens: int, run: Callable[[], Any]) -> str | None:
    """The first block whose attention a rollout would misread, its class, and what is the matter.

    Standard form: one softmax over all tokens per block, by `scaled_dot_product_attention`.
    Refused are windows, linear attention, several attentions in a block, and results that are not
    finite. (Gated attention is refused when the model is built.)

    Args:
        blocks: the transformer's blocks, in the order in which they run.
        tokens: that each should attend to, prefix tokens included.
        run: a forward pass through them.

    Returns:
        one line without the model's name, or None where every block is fine.
    """
    spans: list[tuple[int, int]] = [(0, 0)] * len(blocks)
    hooks = []
    with torch.no_grad(), AttentionTap(fused=False) as tap:
        for index, block in enumerate(blocks):

            def before(*_: Any, index: int = index) -> None:
                spans[index] = (len(tap.layers), 0)

            def after(*_: Any, index: int = index) -> None:
                spans[index] = (spans[index][0], len(tap.layers))

            hooks += [block.register_forward_pre_hook(before), block.register_forward_hook(after)]
        try:
            run()
        finally:
            for hook in hooks:
                hook.remove()
    for index, (block, (start, end)) in enumerate(zip(blocks, spans, strict=True)):
        attention = getattr(block, "attn", block)
        reason = _why_not(attention, tap.layers[start:end], tokens)
        if reason is not None:
            return f"block {index} ({type(attention).__name__}) {reason}"
    return None


def _why_not(attention: nn.Module, calls: Sequence[AttentionLayer], tokens: int) -> str | None:
    if not calls:
        return (
            "does not use standard fused attention; is it linear attention, or is timm's fused "
            "attention switched off (TIMM_FUSED_ATTN=0)?"
        )
    if len(calls) > 1:
        return f"attends {len(calls)} times; a rollout needs one softmax attention per block"
    if calls[0].q.shape[2] != tokens or calls[0].k.shape[2] != tokens:
        return (
            f"attends from {calls[0].q.shape[2]} to {calls[0].k.shape[2]} of {tokens} tokens; "
            "is it windowed or pooled?"
        )
    for name in ("q", "k", "v", "out"):
        tensor = getattr(calls[0], name)
        if not torch.isfinite(tensor).all():
            what = f"gives values that are not finite ({name}, {str(tensor.dtype)[6:]}); "
            if tensor.dtype == torch.float16:
                return what + "set train.precision=bf16 or 32"
            return what + "are its weights or the images damaged?"
    return None
