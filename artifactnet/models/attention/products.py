"""Which implementation multiplies with attention matrices: plain PyTorch, or Triton on request."""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType

from torch import Tensor

from artifactnet.models.attention import tiles

_log = logging.getLogger(__name__)


def products_for(q: Tensor, k: Tensor, triton: bool = False) -> ModuleType:
    """The module of the products for queries and keys: `tiles`, or on request `triton_kernels`.

    The Triton kernels have never run on a GPU, so only ``model.attention.form=triton`` uses them.
    Logs once that they exist where CUDA goes without them, or why requested ones cannot run.
    """
    if not triton:
        if q.device.type == "cuda":
            _warn_once(
                "rollout by plain PyTorch; model.attention.form=triton switches to Triton kernels, "
                "which have not been verified on a GPU yet"
            )
        return tiles
    try:
        from artifactnet.models.attention import triton_kernels
    except ImportError as error:
        reason: str | None = f"triton cannot be imported ({error})"
    else:
        reason = triton_kernels.why_not(q, k)
        if reason is None:
            return triton_kernels
    _warn_once(f"model.attention.form=triton: rollout by plain PyTorch instead: {reason}")
    return tiles


def log_sum_exp_of(
    q: Tensor, k: Tensor, scale: float, known: Tensor | None, triton: bool = False
) -> Tensor:
    """Log-sum-exp of the scores of the first M queries, (B, H, M), float32 or wider.

    ``known`` is that of all queries, (B, H, N), where the attention's kernel returned it.
    """
    if known is None:
        computed: Tensor = products_for(q, k, triton).log_sum_exp(q, k, scale)
        return computed
    return known[:, :, : q.shape[2]]


@cache
def _warn_once(text: str) -> None:
    _log.warning(text)
