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

from artifactnet.metrics.checks import BoolArray, Float64Array, checked_answers


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
    fake, chances = checked_answers(labels, probabilities)
    edges, index = _bins(chances, bins)
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


def _bins(chances: Float64Array, bins: int) -> tuple[list[float], npt.NDArray[np.intp]]:
    """The limits of equally wide bins, and the bin of each probability."""
    if bins < 1:
        raise ValueError(f"need 1 bin or more, not {bins}")
    edges: list[float] = (np.arange(bins + 1) / bins).tolist()
    # compared with the returned limits: p * bins would put 0.29 of 100 bins too low
    return edges, np.searchsorted(edges[1:-1], chances, side="right")


def expected_calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 10, *, balanced: bool = False
) -> float | None:
    """Mean distance between probability and share of fakes, bins weighted by their images.

    Args and errors as in `reliability`. ``balanced`` gives both classes the same weight as a whole,
    however many images they have.

    Returns:
        A number in [0, 1], 0 is best; None without images.
    """
    fake, chances = checked_answers(labels, probabilities)
    if not len(chances):
        return None
    _, index = _bins(chances, bins)
    weights = balanced_weights(fake) if balanced else np.full(len(chances), 1 / len(chances))
    # the weights of a bin cancel in its share times its mean distance
    return float(np.abs(np.bincount(index, weights=weights * (chances - fake))).sum())


def balanced_weights(fake: BoolArray) -> Float64Array:
    """(N,) weights that add up to 1, each class to the same share."""
    counts = np.where(fake, fake.sum(), (~fake).sum())
    return 1 / (counts * len(np.unique(fake)))


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
