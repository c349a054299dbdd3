"""Trying a network on an empty image before the first step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_MOST = 2e8  # multiplications; what takes more is costly
_PATCH_AREA = 256  # pixels that share one pass through the weights, roughly
_LONGEST = 160  # characters of a reason that come from another library
M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


def dry_run(
    module: M, size: tuple[int, int], use: Callable[[M, Tensor], T], shapes_alone: bool = True
) -> T:
    """What ``use(module, image)`` gives for an empty image (1, 3, H, W), in evaluation mode.

    It runs a copy, because networks keep what they computed from their weights.

    Args:
        module: stays as it is.
        size: (H, W).
        use: runs the copy.
        shapes_alone: what is costly is tried by its shapes alone, without weights. That does not
            find an index beyond the end of a table, as of the relative positions of MViTv2 in
            images larger than those that it was built for.

    Raises:
        Exception: whatever the module raises on this image.
    """
    weights = sum(weight.numel() for weight in module.parameters())
    with torch.no_grad():
        if shapes_alone and weights * size[0] * size[1] / _PATCH_AREA > _MOST:
            try:
                with torch.device("meta"):
                    return use(_without_weights(module).eval(), torch.zeros(1, 3, *size))
            except Exception:  # not all code runs without values: the weights have the last word
                pass
        reference = next((w for w in module.parameters() if w.is_floating_point()), torch.ones(1))
        return use(copy.deepcopy(module).eval(), reference.new_zeros(1, 3, *size))


def first_line(error: Exception) -> str:
    """What another library says was wrong, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # a line that only announces a list says nothing on its own
    text = " ".join(lines[:2]) if lines and lines[0].endswith(":") else (lines or [""])[0]
    text = text or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _without_weights(module: M) -> M:
    """A copy whose parameters, buffers and tensors have shapes but no storage."""
    shapes: dict[int, Any] = {}
    for part in module.modules():
        plain = [value for value in vars(part).values() if isinstance(value, Tensor)]
        for tensor in (*part.parameters(False), *part.buffers(False), *plain):
            empty = torch.empty_like(tensor, device="meta", requires_grad=False)
            is_weight = isinstance(tensor, nn.Parameter)
            shapes[id(tensor)] = nn.Parameter(empty, False) if is_weight else empty
    return copy.deepcopy(module, shapes)
