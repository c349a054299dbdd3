"""Building a network without drawing the random weights that a file is about to replace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# what fills a tensor with random numbers, and the costly part of truncated normal ones
_DRAWS = {
    *(torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.erfinv_),
    *(nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_),
}


class _Undrawn(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def uninitialized() -> TorchFunctionMode:
    """A context in which parameters of new layers keep whatever was in memory.

    Every value must be loaded afterwards. Constants, as those of norms, are set as usual, and no
    random number is drawn.
    """
    return _Undrawn()
