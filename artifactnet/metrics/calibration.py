"""Calibration of probabilities (reliability diagram, ECE) and the ROC curve.

Fake is the positive class; probabilities are those of being fake. All of it is float64 numpy:
reports draw these curves without importing scikit-learn or torchmetrics, whose calibration error
and calibration curve also put a value on a bin's limit into another bin.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from artifactnet.metrics.checks import Float64Array, checked_answers


class RocPoint(NamedTuple):
    """Rates when every image whose probability is at least ``threshold`` is called fake."""

    fpr: float  # share of the real images called fake
    tpr: float  # share of the fakes called fake
    threshold: float | None  # a probability that occurs; None for the first point: no image


def reliability(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 10
) -> list[dict[str, Any]]:
    """Reliability diagram: share of fakes among images of similar predicted probability.

    Args:
        labels: (N,) 0 real, 1 fake.
        probabilities: (N,) of being fake, in [0, 1].
        bins: number of equally wide bins.

    Returns:
        One dictionary per bin, in order, empty bins included: the limits ``low`` and ``high``
        (a limit belongs to the upper bin, and 1 to the last); ``count`` of images; their mean
        probability ``confidence`` and share of fakes ``fake``, both None without images.

    Raises:
        ValueError: shapes differ, a label is neither 0 nor 1, or no bins.
        ArtifactNetError: a probability is not a number in [0, 1].
    """
    if bins < 1:
        raise ValueError(f"need 1 bin or more, not {bins}")
    fake, chances = checked_answers(labels, probabilities)
    edges = (np.arange(bins + 1) / bins).tolist()
    # compared with the returned limits: p * bins would put 0.29 of 100 bins too low
    index = np.searchsorted(edges[1:-1], chances, side="right")
    counts = np.bincount(index, minlength=bins).tolist()
    sums = np.bincount(index, weights=chances, minlength=bins).tolist()
    fakes = np.bincount(index, weights=fake, minlength=bins).tolist()
    return [
        {
            "low": low,
            "high": high,
            "count": count,
            "confidence": total / count if count else None,
            "fake": positive / count if count else None,
        }
        for (low, high), count, total, positive in zip(
            pairwise(edges), counts, sums, fakes, strict=True
        )
    ]


def expected_calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 10
) -> float | None:
    """Mean distance between probability and share of fakes, bins weighted by their images.

    Args and errors as in `reliability`.

    Returns:
        A number in [0, 1], 0 is best; None without images.
    """
    filled = [row for row in reliability(labels, probabilities, bins) if row["count"]]
    if not filled:
        return None
    distances = sum(row["count"] * abs(row["confidence"] - row["fake"]) for row in filled)
    return float(distances / sum(row["count"] for row in filled))


def roc_curve(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, points: int | None = None
) -> list[RocPoint]:
    """Receiver operating characteristic; images of equal probability share a point.

    Args:
        labels: (N,) 0 real, 1 fake.
        probabilities: (N,) of being fake, in [0, 1].
        points: keep at most this many points (2 or more) for drawing, evenly spread along the
            curve, both ends included. None keeps all.

    Returns:
        Points from (0, 0) to (1, 1), thresholds falling; none where a class is missing.

    Raises:
        ValueError: shapes differ, a label is neither 0 nor 1, or fewer than 2 points.
        ArtifactNetError: a probability is not a number in [0, 1].
    """
    if points is not None and points < 2:
        raise ValueError(f"a curve needs 2 points or more, not {points}")
    fake, chances = checked_answers(labels, probabilities)
    if fake.all() or not fake.any():
        return []
    thresholds, group = np.unique(-chances, return_inverse=True)  # negated, so that they fall
    sizes = [np.bincount(group[of], minlength=len(thresholds)) for of in (~fake, fake)]
    fpr, tpr = (np.concatenate(([0], np.cumsum(size))) / size.sum() for size in sizes)
    kept = _spread(fpr + tpr, points) if points else np.arange(len(fpr))
    return [
        RocPoint(float(fpr[i]), float(tpr[i]), -float(thresholds[i - 1]) if i else None)
        for i in kept
    ]


def _spread(position: Float64Array, count: int) -> npt.NDArray[np.intp]:
    """At most ``count`` indices of a rising array, evenly spread over its range, ends included."""
    if len(position) <= count:
        return np.arange(len(position))
    targets = np.linspace(position[0], position[-1], count)
    kept = np.searchsorted(position, targets).clip(0, len(position) - 1)
    kept[0], kept[-1] = 0, len(position) - 1
    return np.unique(kept)
