"""Importing timm without PyTorch's compiler, which takes several times as long as timm itself.

Nothing here compiles, but `import timm` loads ``torch._dynamo`` for two decorators: torchvision's
RoIAlign asks it whether a device can be compiled for, and NaFlexViT tells it what not to compile.
Both work as before; they load the compiler when they need it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_UTILS = "torch._dynamo.utils"


def import_timm() -> Any:
    """The module ``timm`` (with ``timm.models``), imported on first use."""
    if "timm" in sys.modules or _UTILS in sys.modules:
        return import_module("timm")
    with _compiler_on_demand():
        return import_module("timm")


class _OnDemand(ModuleType):
    """``torch._dynamo.utils`` before it is loaded."""

    @staticmethod
    def is_compile_supported(device_type: Any) -> Any:
        """The function of that name, loaded when it is called."""
        return _load_utils().is_compile_supported(device_type)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system looks for
            raise AttributeError(name)
        return getattr(_load_utils(), name)


def _load_utils() -> Any:
    if isinstance(sys.modules.get(_UTILS), _OnDemand):
        del sys.modules[_UTILS]
    return import_module(_UTILS)


@contextmanager
def _compiler_on_demand() -> Iterator[None]:
    import torch

    disable = torch.compiler.disable

    def disable_on_demand(
        fn: Callable[..., Any] | None = None, recursive: bool = True, **options: Any
    ) -> Any:
        if fn is None:
            return functools.partial(disable_on_demand, recursive=recursive, **options)

        @functools.cache
        def disabled() -> Any:
            return disable(fn, recursive, **options)

        @functools.wraps(fn)
        def run(*args: Any, **kwargs: Any) -> Any:
            return disabled()(*args, **kwargs)

        return run

    stand_in = _OnDemand(_UTILS)
    sys.modules[_UTILS] = stand_in
    torch.compiler.disable = disable_on_demand
    try:
        yield
    finally:
        torch.compiler.disable = disable
        if sys.modules.get(_UTILS) is stand_in:
            del sys.modules[_UTILS]
