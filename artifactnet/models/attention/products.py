"""Which implementation multiplies with attention matrices: Triton on a GPU, else plain PyTorch."""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType

from torch import Tensor

from artifactnet.models.attention import tiles

_log = logging.getLogger(__name__)


def products_for(q: Tensor, k: Tensor) -> ModuleType:
    """The module of the products for queries and keys: `tiles`, or on a GPU `triton_kernels`.

    Where Triton cannot be used on a GPU, the reason is logged once.

    Args:
        q: (B, H, M, d).
        k: (B, H, N, d).
    """
    if q.device.type != "cuda":
        return tiles
    try:
        from artifactnet.models.attention import triton_kernels
    except ImportError as error:
        _say_once(f"triton cannot be imported ({error})")
        return tiles
    reason = triton_kernels.why_not(q, k)
    if reason is not None:
        _say_once(reason)
        return tiles
    return triton_kernels


def sums_of(q: Tensor, k: Tensor, scale: float, known: Tensor | None) -> Tensor:
    """Log-sum-exp of the scores of some queries, (B, H, M), float32 or wider.

    Args:
        q: (B, H, M, d), the first M of N queries.
        k: (B, H, N, d).
        scale: of the scores.
        known: of all queries, (B, H, N), where the attention's kernel told it.
    """
    if known is None:
        found: Tensor = products_for(q, k).log_sum_exp(q, k, scale)
        return found
    return known[:, :, : q.shape[2]]


@cache
def _say_once(reason: str) -> None:
    _log.warning("rollout by plain PyTorch instead of Triton: %s", reason)
