"""Correlation coefficients, and the agreement of predicted scores with human ones (PLCC, SRCC)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from artifactnet.metrics.checks import Float64Array, require_finite


def average_ranks(values: npt.ArrayLike) -> Float64Array:
    """Ranks from 1 along the last dimension of (..., N); equal values share their mean rank."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=-1), dtype=np.float64)


def pearson(first: npt.ArrayLike, second: npt.ArrayLike) -> float | None:
    """Pearson's linear correlation coefficient of two arrays of one shape, in [-1, 1].

    None where it is undefined: fewer than two values, or either side constant.
    """
    from scipy.stats import NearConstantInputWarning, pearsonr

    x, y = (np.asarray(values, dtype=np.float64).ravel() for values in (first, second))
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearConstantInputWarning)  # small differences count
        return float(pearsonr(x, y).statistic)


def spearman(first: npt.ArrayLike, second: npt.ArrayLike) -> float | None:
    """Spearman's rank correlation coefficient: `pearson` of the `average_ranks`."""
    return pearson(*(average_ranks(np.asarray(values).ravel()) for values in (first, second)))


def plcc(predicted: Tensor, true: Tensor) -> float | None:
    """`pearson` of predicted and human scores, (N,) each (HEIE, Sec. 4.2).

    Raises:
        ValueError: shapes differ, or a true score is not finite.
        ArtifactNetError: a predicted score is not finite.
    """
    return pearson(*_checked(predicted, true))


def srcc(predicted: Tensor, true: Tensor) -> float | None:
    """`spearman` of predicted and human scores; errors as in `plcc`."""
    return spearman(*_checked(predicted, true))


def _checked(predicted: Tensor, true: Tensor) -> tuple[Float64Array, Float64Array]:
    if true.ndim != 1 or predicted.shape != true.shape:
        raise ValueError(
            "need equally many predicted and true scores, got shapes "
            f"{tuple(predicted.shape)} and {tuple(true.shape)}"
        )
    if not bool(true.isfinite().all()):
        raise ValueError("a true score is not finite")
    require_finite(predicted, "a predicted score")
    return predicted.detach().double().cpu().numpy(), true.double().cpu().numpy()


class ScoreCorrelationMetric(Metric):
    """`plcc` and `srcc` over a data set.

    Keeps every score (a few bytes per image), since ranks need all of them. Processes are joined
    by concatenation, so they may hold different numbers of images, even none.
    """

    full_state_update = False
    predicted: list[Tensor]
    true: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        # float32 and one-dimensional, as the placeholder of torchmetrics for an empty process
        self.add_state("predicted", default=[], dist_reduce_fx="cat")
        self.add_state("true", default=[], dist_reduce_fx="cat")

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Add a batch.

        Args:
            predicted: (B,) plausibility in [0, 1]; 1: nothing looks wrong.
            true: (B,) human scores; images where it is NaN are left out.

        Raises:
            ValueError: shapes differ, or a true score is infinite.
            ArtifactNetError: the prediction of an evaluated image is not finite.
        """
        if true.ndim != 1 or predicted.shape != true.shape:
            raise ValueError(f"{tuple(predicted.shape)} predicted, {tuple(true.shape)} true scores")
        known = ~true.isnan()
        predicted, true = predicted.detach()[known], true[known]
        _checked(predicted, true)
        self.predicted.append(predicted.to(self.device, torch.float32))
        self.true.append(true.to(self.device, torch.float32))

    def compute(self) -> dict[str, Any]:
        """``PLCC``, ``SRCC`` (None where undefined) and ``images`` that have a true score."""
        if not len(self.true):
            return {"PLCC": None, "SRCC": None, "images": 0}
        predicted, true = dim_zero_cat(self.predicted), dim_zero_cat(self.true)
        return {"PLCC": plcc(predicted, true), "SRCC": srcc(predicted, true), "images": len(true)}
