"""How well scores put one class above the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def auc(truth: Sequence[bool] | npt.NDArray[np.bool_], scores: npt.ArrayLike) -> float | None:
    """Area under the ROC curve: how often a positive's score is above a negative's.

    This is the exact Mann-Whitney statistic, a tie counting 1/2.

    Args:
        truth: (N,) which are positive.
        scores: (N,) finite or infinite.

    Returns:
        In [0, 1]; None if there is no positive or no negative.

    Raises:
        ValueError: shapes differ, or a score is NaN.
    """
    positive, values = np.asarray(truth, np.bool_), np.asarray(scores, np.float64)
    if positive.shape != values.shape or positive.ndim != 1:
        raise ValueError(f"need (N,) truths and scores, got {positive.shape} and {values.shape}")
    if np.isnan(values).any():
        raise ValueError("a score is NaN")
    high, low = values[positive], np.sort(values[~positive])
    if not len(high) or not len(low):
        return None
    # whole numbers, hence exact; the trapezoids of scikit-learn and torchmetrics round
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(below.sum() / (2 * len(high) * len(low)))
