"""Two treatments on the same units, say the same seeds: differences, sign-flip test, Holm.

The exact sign-flip (randomization) test of Fisher: without an effect every difference could as
well have had the other sign. It assumes no distribution.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from artifactnet.metrics.checks import Float64Array

MOST_PAIRS = 40  # the sums of two halves with 2^20 sign vectors each are held in memory
_TIE = 1e-9  # of the sum of absolute values: sums that differ by less are equal but for rounding


class PairedDifference(NamedTuple):
    """How much higher the treated units are than their controls."""

    pairs: int
    mean: float
    std: float | None  # of the sample (n - 1); None for a single pair
    p: float  # exact, two-sided, see `sign_flip_p`


def paired_difference(treated: Sequence[float], control: Sequence[float]) -> PairedDifference:
    """Mean, spread and p-value of the differences ``treated[i] - control[i]``.

    Raises:
        ValueError: the numbers of values differ, or those of `sign_flip_p`.
    """
    differences = [a - b for a, b in zip(treated, control, strict=True)]
    p = sign_flip_p(differences)
    std = statistics.stdev(differences) if len(differences) > 1 else None
    return PairedDifference(len(differences), statistics.fmean(differences), std, p)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Exact two-sided p-value of "the mean difference is zero".

    The share of the 2^n sign vectors whose sum of signed differences is at least as far from zero
    as the observed one. It cannot fall below `smallest_p`.

    Args:
        differences: 1 to `MOST_PAIRS` finite numbers.

    Raises:
        ValueError: none, too many, or one that is not finite.
    """
    count = len(differences)
    values = np.asarray(differences, dtype=np.float64)
    if not 1 <= count <= MOST_PAIRS:
        raise ValueError(f"a sign-flip test takes 1 to {MOST_PAIRS} differences, not {count}")
    if not np.isfinite(values).all():
        raise ValueError("a difference is not finite")
    largest = np.abs(values).max()
    if largest == 0:
        return 1.0
    values = values / largest  # no overflow, and one tolerance for every scale
    bound = abs(values.sum()) - _TIE * np.abs(values).sum()
    if bound <= 0:
        return 1.0  # no sum is closer to zero
    # Every vector is one of the first half beside one of the second. By symmetry as many sums lie
    # at or below -bound as at or above it.
    first, second = _signed_sums(values[: count // 2]), np.sort(_signed_sums(values[count // 2 :]))
    above = len(first) * len(second) - int(np.searchsorted(second, bound - first).sum())
    return float(2 * above / 2**count)


def smallest_p(pairs: int) -> float:
    """The least p-value that `sign_flip_p` can give: all differences have one sign."""
    return float(2 / 2**pairs)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for testing all of them (Holm 1979), in the order given.

    Raises:
        ValueError: one is not in [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):  # also false for NaN
        raise ValueError(f"p-values must be in 0..1, not {list(p_values)}")
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def _signed_sums(values: Float64Array) -> Float64Array:
    """Sums of n values under all 2^n sign vectors."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums
