"""Can a probability be believed, and what does a threshold cost? Curves for pictures.

Fake is the positive class; probabilities are those of being fake.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from artifactnet.types import ArtifactNetError

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class RocPoint(NamedTuple):
    """What calling all images fake whose probability is at least ``threshold`` comes to.

    Attributes:
        fpr: share of the real images called fake.
        tpr: share of the fakes called fake.
        threshold: a probability that occurs; None for the first point, at which no image is
            called fake.
    """

    fpr: float
    tpr: float
    threshold: float | None


def reliability(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 10
) -> list[dict[str, Any]]:
    """Reliability diagram: how often is an image fake that is called fake with probability p?

    Args:
        labels: (N,) 0 real, 1 fake.
        probabilities: (N,) of being fake, in [0, 1].
        bins: number of equally wide bins.

    Returns:
        One dictionary per bin, rising, the empty ones included: ``low`` and ``high``, the limits
        (a limit belongs to the upper bin, and 1 to the last); ``count`` of images;
        ``confidence``, their mean probability, and ``fake``, the share of fakes among them, both
        None where there are none.

    Raises:
        ValueError: shapes differ, a label is neither 0 nor 1, or no bins.
        ArtifactNetError: a probability is not a number in [0, 1].
    """
    if bins < 1:
        raise ValueError(f"need 1 bin or more, not {bins}")
    fake, chances = _check(labels, probabilities)
    edges = (np.arange(bins + 1) / bins).tolist()
    # Compared with the limits as they are given out: p * bins would put 0.29 of 100 too low.
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
            "fake": found / count if count else None,
        }
        for (low, high), count, total, found in zip(
            pairwise(edges), counts, sums, fakes, strict=True
        )
    ]


def expected_calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 10
) -> float | None:
    """Mean distance between probability and share of fakes, bins weighted by their images.

    Args:
        labels: (N,) 0 real, 1 fake.
        probabilities: (N,) of being fake, in [0, 1].
        bins: number of equally wide bins, see `reliability`.

    Returns:
        A number in [0, 1], 0 is best; None without images.

    Raises:
        ValueError: shapes differ, a label is neither 0 nor 1, or no bins.
        ArtifactNetError: a probability is not a number in [0, 1].
    """
    filled = [row for row in reliability(labels, probabilities, bins) if row["count"]]
    if not filled:
        return None
    distances = sum(row["count"] * abs(row["confidence"] - row["fake"]) for row in filled)
    return float(distances / sum(row["count"] for row in filled))


def roc_curve(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, points: int | None = None
) -> list[RocPoint]:
    """Receiver operating characteristic, exact: images of equal probability move together.

    Args:
        labels: (N,) 0 real, 1 fake.
        probabilities: (N,) of being fake, in [0, 1].
        points: for drawing, keep at most so many points, spread evenly along the curve, the
            first and the last among them; at least 2. None keeps all.

    Returns:
        Points from (0, 0) to (1, 1), thresholds falling; none where a class is missing.

    Raises:
        ValueError: shapes differ, a label is neither 0 nor 1, or fewer than 2 points.
        ArtifactNetError: a probability is not a number in [0, 1].
    """
    if points is not None and points < 2:
        raise ValueError(f"a curve needs 2 points or more, not {points}")
    fake, chances = _check(labels, probabilities)
    if fake.all() or not fake.any():
        return []
    thresholds, group = np.unique(-chances, return_inverse=True)  # negative, so that they fall
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


def _check(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[BoolArray, Float64Array]:
    """Which images are fake, and their probabilities in float64."""
    kinds, chances = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if kinds.ndim != 1 or kinds.shape != chances.shape:
        raise ValueError(
            "need equally many labels and probabilities, got shapes "
            f"{kinds.shape} and {chances.shape}"
        )
    if not np.isin(kinds, (0, 1)).all():
        raise ValueError("labels must be 0 (real) or 1 (fake)")
    bad = int((~((chances >= 0) & (chances <= 1))).sum())  # a NaN is neither
    if bad:
        raise ArtifactNetError(
            f"{bad} of {len(chances)} probabilities are not numbers in [0, 1]: the model's "
            "weights are broken or its training diverged; use an earlier checkpoint"
        )
    return kinds == 1, chances
