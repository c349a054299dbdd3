"""Boxes of entities that a model names, against the annotated ones (Q-Real, Sec. 5: ImageQA).

In each image, predicted and true boxes are paired one to one such that the sum of IoU is largest.
Figures are pooled over the images (our reading), and means over images stand beside them. The
paper's three figures reward silence and one safe box, so recall and boxes an image belong to them.

Boxes are (x1, y1, x2, y2) in pixels, half-open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from artifactnet.metrics.confusion import ratio

THRESHOLD = 0.5  # of a detection, exceeded strictly
_STEPS = 10  # of the grid

Boxes = npt.NDArray[np.float64] | Sequence[Sequence[float]]
Area = Literal["exact", "grid"]


class Pair(NamedTuple):
    """A predicted box and its true one."""

    predicted: int
    truth: int
    iou: float


class ImagePairs(NamedTuple):
    """The boxes of one image, paired."""

    pairs: tuple[Pair, ...]
    predicted: int
    truth: int

    @property
    def ious(self) -> list[float]:
        """IoU of each pair."""
        return [pair.iou for pair in self.pairs]


def pairwise_iou(predicted: Boxes, truth: Boxes) -> npt.NDArray[np.float64]:
    """(N, M) IoU of each predicted box with each true one; 0 with an empty one.

    Raises:
        ValueError: boxes are not (N, 4) finite numbers.
    """
    mine, theirs = _boxes(predicted, "predicted"), _boxes(truth, "truth")
    low = np.maximum(mine[:, None, :2], theirs[None, :, :2])
    high = np.minimum(mine[:, None, 2:], theirs[None, :, 2:])
    common = (high - low).clip(min=0).prod(axis=-1)
    areas = [(one[:, 2:] - one[:, :2]).clip(min=0).prod(axis=-1) for one in (mine, theirs)]
    union = areas[0][:, None] + areas[1][None] - common
    found: npt.NDArray[np.float64] = np.divide(
        common, union, out=np.zeros_like(common), where=union > 0
    )
    return found


def pair_boxes(predicted: Boxes, truth: Boxes) -> ImagePairs:
    """Pair min(N, M) boxes so that the sum of 1 - IoU is smallest, pairs of IoU 0 included.

    Arguments and errors as of `pairwise_iou`.
    """
    iou = pairwise_iou(predicted, truth)
    count, true = iou.shape
    if min(count, true) == 0:
        return ImagePairs((), count, true)
    if min(count, true) == 1:  # as most; the solver costs a hundred times as much
        best = int(iou.argmax())
        rows, columns = [best // true], [best % true]
    else:
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(1 - iou)
    pairs = (Pair(int(r), int(c), float(iou[r, c])) for r, c in zip(rows, columns, strict=True))
    return ImagePairs(tuple(pairs), count, true)


def detection_rate(ious: Sequence[float], predicted: int, threshold: float = THRESHOLD) -> float:
    """Pairs above a threshold over all predicted boxes, in [0, 1]: a precision; 0/0 is 0."""
    return ratio(sum(iou > threshold for iou in ious), predicted)


def detection_area(ious: Sequence[float], predicted: int, area: Area = "exact") -> float:
    """Area under `detection_rate` over thresholds from 0 to 1, in [0, 1].

    Args:
        ious: of the pairs.
        predicted: boxes in all.
        area: ``exact`` is the integral, the sum of IoU over the predicted boxes. ``grid`` is the
            trapezoid over 0, 0.1, ..., 1 with "at least" in place of "above", which gives half a
            step for each pair of IoU 0: it would explain why the paper has an area above its IoU.
    """
    if area == "exact":
        return ratio(math.fsum(ious), predicted)
    values = np.asarray(ious, np.float64)
    rates = [ratio(int((values >= k / _STEPS).sum()), predicted) for k in range(_STEPS + 1)]
    return (math.fsum(rates) - (rates[0] + rates[-1]) / 2) / _STEPS


def box_figures(images: Sequence[ImagePairs], area: Area = "exact") -> dict[str, Any]:
    """Figures of a test set.

    Args:
        images: one for each image and dimension that was asked about; one without any box adds
            nothing but itself to the boxes an image.
        area: see `detection_area`.

    Returns:
        ``iou`` (mean over the pairs), ``detection_rate``, ``auc``, ``recall`` (pairs above 0.5
        over true boxes), ``boxes`` (predicted an image), ``truth`` (true ones an image); the counts
        ``images``, ``pairs``, ``predicted`` and ``true``; and under ``per_image`` the means of
        ``iou``, ``detection_rate`` and ``auc`` over images with any box. 0/0 is 0.
    """
    ious = [iou for image in images for iou in image.ious]
    predicted = sum(image.predicted for image in images)
    true = sum(image.truth for image in images)
    some = [image for image in images if image.predicted or image.truth]

    def mean(values: Sequence[float]) -> float:
        return ratio(math.fsum(values), len(values))

    return {
        "iou": mean(ious),
        "detection_rate": detection_rate(ious, predicted),
        "auc": detection_area(ious, predicted, area),
        "recall": ratio(sum(iou > THRESHOLD for iou in ious), true),
        "boxes": ratio(predicted, len(images)),
        "truth": ratio(true, len(images)),
        "images": len(images),
        "pairs": len(ious),
        "predicted": predicted,
        "true": true,
        "per_image": {
            "iou": mean([mean(one.ious) for one in some]),
            "detection_rate": mean([detection_rate(one.ious, one.predicted) for one in some]),
            "auc": mean([detection_area(one.ious, one.predicted, area) for one in some]),
        },
    }


def _boxes(boxes: Boxes, name: str) -> npt.NDArray[np.float64]:
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all():
        raise ValueError(f"{name} boxes must be (N, 4) finite numbers, got shape {array.shape}")
    return array
