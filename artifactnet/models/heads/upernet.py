"""Segmentation heads of mmsegmentation: UPerNet, and FCN as its auxiliary in training.

The only importer of mmseg, mmcv and mmengine. mmsegmentation imports mmcv's compiled operators,
although neither head calls one, and mmcv-lite has none: a placeholder then replaces them, which
raises as soon as an operator is called.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import nn

from artifactnet.types import ArtifactNetError

_PIP = "pip install 'mmsegmentation>=1.2.2' 'mmcv-lite>=2.1,<2.2' 'mmengine>=0.10.7' ftfy regex"
_EXTENSION = "mmcv._ext"
_POOL_SCALES = (1, 2, 3, 6)  # of UPerNet's pyramid pooling, Xiao et al. 2018


def uper_head(
    in_channels: Sequence[int], channels: int, num_outputs: int, dropout: float
) -> nn.Module:
    """UPerNet's decode head (Xiao et al. 2018; X-AIGD Sec. 5).

    Args:
        in_channels: of the pyramid's levels, finest first.
        channels: hidden width.
        dropout: of whole channels before the last layer.

    Returns:
        Module from a list of (B, C_k, h_k, w_k) to logits (B, num_outputs, h_0, w_0).

    Raises:
        ArtifactNetError: mmsegmentation is missing or does not go with the mmcv installed.
    """
    arguments = _common(channels, num_outputs, dropout) | {
        "in_channels": list(in_channels),
        "in_index": list(range(len(in_channels))),
        "pool_scales": _POOL_SCALES,
    }
    head = _build("UPerHead", arguments)
    for module in list(head.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                setattr(module, name, _Pool(child.output_size))
    return head


def fcn_head(
    in_channels: Sequence[int], level: int, channels: int, num_outputs: int, dropout: float
) -> nn.Module:
    """FCN head on one level of the pyramid (Long et al. 2015), for training only.

    Arguments and errors are those of `uper_head`; it reads one ``level`` of the list and returns
    logits (B, num_outputs, h_level, w_level).
    """
    arguments = _common(channels, num_outputs, dropout) | {
        "in_channels": in_channels[level],
        "in_index": level,
        "num_convs": 1,
        "concat_input": False,
    }
    return _build("FCNHead", arguments)


class _Pool(nn.AdaptiveAvgPool2d):
    """Adaptive pooling for any size; MPS has none for sizes that the grid does not divide."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "mps":
            return super().forward(x.cpu()).to(x.device)
        return super().forward(x)


def _common(channels: int, num_outputs: int, dropout: float) -> dict[str, Any]:
    # plain batch norm: a distributed run on GPUs converts it to its synchronised form
    return {
        "channels": channels,
        "num_classes": num_outputs,
        "out_channels": num_outputs,
        "dropout_ratio": dropout,
        "norm_cfg": {"type": "BN"},
        "align_corners": False,
    }


def _build(name: str, arguments: dict[str, Any]) -> nn.Module:
    heads = _mmseg_heads()
    with warnings.catch_warnings():
        # of mmseg about its own way to build the loss that a head carries; ours is in `losses`
        warnings.filterwarnings("ignore", message="``build_loss``")
        warnings.filterwarnings("ignore", message="Default ``avg_non_ignore``")
        return getattr(heads, name)(**arguments)


def _mmseg_heads() -> Any:
    """The module that holds mmseg's decode heads; takes seconds the first time."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about packages that no head uses
            _check_mmcv()
            plant_placeholder()
            from mmseg.models import decode_heads
    except (ImportError, AssertionError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactNetError(
            f"the UPerNet head needs mmsegmentation with a matching mmcv ({reason}): {_PIP}"
        ) from error
    return decode_heads


def _check_mmcv() -> None:
    """mmseg's own message about a wrong mmcv names only the oldest version."""
    import mmcv

    numbers = [int(number) for number in re.findall(r"\d+", mmcv.__version__)[:2]]
    if not [2, 0] <= numbers < [2, 2]:
        raise ArtifactNetError(
            f"the UPerNet head needs mmcv 2.0 or 2.1, not {mmcv.__version__}: "
            f"pip uninstall -y mmcv mmcv-lite mmcv-full && {_PIP}"
        )


def plant_placeholder() -> None:
    """Stand in for mmcv's compiled operators, only where the real ones are not installed.

    Raises:
        ImportError: mmcv is not installed, or broken.
    """
    if _EXTENSION not in sys.modules and importlib.util.find_spec(_EXTENSION) is None:
        sys.modules[_EXTENSION] = _Placeholder(_EXTENSION)


class _Placeholder(ModuleType):
    """A module that has every operator, each of which raises when called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python's import machinery asks of any module
            raise AttributeError(name)

        def operator(*_: Any, **__: Any) -> NoReturn:
            raise ArtifactNetError(
                f"mmcv's compiled operator {name} is not installed (mmcv-lite has none); "
                "install the full mmcv: pip install 'mmcv>=2.1,<2.2'"
            )

        return operator
