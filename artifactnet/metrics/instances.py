"""Weak localisation: does a predicted region lie on an artifact instance?

The benchmark's rules (X-AIGD, A.5 and its public metric description); `artifactnet.metrics.regions`
defines the instances.

- A predicted region matches an instance if area(region and instance) / area(region) > t,
  strictly, as in the public description (the paper's text has >=). This is not IoU.
- Regions and instances are not paired: one region may match several instances and vice versa.
  TP = matched instances, FN = unmatched instances, FP = unmatched regions.

Areas come from summed-area tables and histograms inside the rectangle of the instances, so
no mask of the image's size is made for a region or an instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from artifactnet.metrics.regions import BoolArray, Int32Array, LabelMap, as_plane

Int64Array = npt.NDArray[np.int64]


class InstanceCounts(NamedTuple):
    """Counts that the scores are computed from."""

    tp: int  # instances matched by a region
    fp: int  # regions that match no instance, the invalid ones included
    fn: int  # instances no region matches
    invalid: int  # regions outside the image, or empty


class Matches(NamedTuple):
    """Flags of one category in one image, for N predicted regions and K instances."""

    predicted: BoolArray  # (N,) the region matches an instance
    instances: BoolArray  # (K,) a region matches the instance
    invalid: BoolArray  # (N,) the region is outside the image, or empty; never matched

    @property
    def counts(self) -> InstanceCounts:
        """Sums of the flags."""
        tp = int(self.instances.sum())
        return InstanceCounts(
            tp=tp,
            fp=int((~self.predicted).sum()),
            fn=len(self.instances) - tp,
            invalid=int(self.invalid.sum()),
        )


def match_boxes(
    truth: LabelMap, boxes: npt.ArrayLike, t: float = 0.5, inclusive: bool = False
) -> Matches:
    """Match predicted boxes with the instances of one category.

    A box is invalid unless 0 <= x_min < x_max <= width and 0 <= y_min < y_max <= height as given:
    a box partly outside is as invalid as one wholly outside or one with a NaN. Coordinates are
    then truncated to integers and taken as [x_min, x_max) x [y_min, y_max); a box without a pixel
    is invalid.

    Args:
        truth: instances of one category.
        boxes: (N, 4) x_min, y_min, x_max, y_max in pixels.
        t: share of a box that must lie on an instance, exceeded strictly; in [0, 1].
        inclusive: a share of exactly ``t`` is enough, as in the paper's text.

    Raises:
        ValueError: ``boxes`` is not (N, 4), or ``t`` is outside [0, 1].
    """
    _check_threshold(t)
    given = _table(boxes, 4, "boxes")
    x_min, y_min, x_max, y_max = given.T
    inside = (x_min >= 0) & (x_min < x_max) & (x_max <= truth.width)
    inside &= (y_min >= 0) & (y_min < y_max) & (y_max <= truth.height)
    cut = np.zeros(given.shape, dtype=np.int64)
    cut[inside] = given[inside].astype(np.int64)
    areas = (cut[:, 2] - cut[:, 0]) * (cut[:, 3] - cut[:, 1])
    matches = _no_match(areas == 0, truth.count)
    local = cut - (truth.left, truth.top, truth.left, truth.top)
    for index, span in enumerate(truth.spans if len(given) else ()):
        shares = _overlaps(truth.labels, index + 1, span, local) / np.maximum(areas, 1)
        enough = shares >= t if inclusive else shares > t
        hit = enough & ~matches.invalid
        matches.predicted[hit] = True
        matches.instances[index] = hit.any()
    return matches


def match_points(truth: LabelMap, points: npt.ArrayLike, t: float = 0.5) -> Matches:
    """Match predicted points (N, 2) of x, y with instances, each as the region of its pixel.

    Coordinates are truncated to integers; a point outside [0, width) x [0, height) is invalid.

    Raises:
        ValueError: ``points`` is not (N, 2), or ``t`` is outside [0, 1].
    """
    _check_threshold(t)
    given = _table(points, 2, "points")
    within = (given >= 0) & (given < (truth.width, truth.height))
    inside = within[:, 0] & within[:, 1]
    matches = _no_match(~inside, truth.count)
    x, y = (given[inside].astype(np.int64) - (truth.left, truth.top)).T
    rows, columns = truth.labels.shape
    here = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    labels = np.zeros(len(x), dtype=np.int64)
    labels[here] = truth.labels[y[here], x[here]]
    hit = (labels > 0) & (t < 1)  # strictly: the share of a hit is exactly 1
    matches.predicted[np.flatnonzero(inside)[hit]] = True
    matches.instances[labels[hit] - 1] = True
    return matches


def match_masks(truth: LabelMap, masks: Sequence[npt.NDArray[Any]], t: float = 0.5) -> Matches:
    """Match N predicted masks (H, W) of the image's size with instances; masks may overlap.

    They are bool or uint8, nonzero inside their region; an empty one is invalid.

    Raises:
        ValueError: a mask is not of the image's size, or neither uint8 nor bool, or ``t`` is
            outside [0, 1].
    """
    _check_threshold(t)
    matches = _no_match(np.zeros(len(masks), dtype=np.bool_), truth.count)
    for index, mask in enumerate(masks):
        if mask.shape != (truth.height, truth.width):
            raise ValueError(
                f"predicted mask {index} has shape {mask.shape}, the image "
                f"{(truth.height, truth.width)}"
            )
        plane = as_plane(mask)
        left, top, width, height = cv2.boundingRect(plane)
        region = plane[top : top + height, left : left + width] != 0
        matches.invalid[index] = not width
        mine, theirs = _common(region, (top, left), truth)
        overlaps = np.bincount(theirs[mine], minlength=truth.count + 1)[1:]
        hit = overlaps / max(1, int(np.count_nonzero(region))) > t
        matches.predicted[index] = hit.any()
        matches.instances[hit] = True
    return matches


def match_regions(truth: LabelMap, predicted: LabelMap, t: float = 0.5) -> Matches:
    """Match the regions of a predicted label map (see `region_labels`) with instances, in one pass.

    Raises:
        ValueError: the label maps are of images of different sizes, or ``t`` is outside [0, 1].
    """
    _check_threshold(t)
    if (truth.height, truth.width) != (predicted.height, predicted.width):
        raise ValueError(
            f"the prediction is of an image of {predicted.width}x{predicted.height}, the truth "
            f"of one of {truth.width}x{truth.height}"
        )
    areas = np.bincount(predicted.labels.ravel(), minlength=predicted.count + 1)
    matches = _no_match(areas[1:] == 0, truth.count)
    mine, theirs = _common(predicted.labels, (predicted.top, predicted.left), truth)
    both = (mine > 0) & (theirs > 0)
    # only overlapping pairs are counted: a full table would hold thousands times thousands
    pairs, overlaps = np.unique(
        mine[both].astype(np.int64) * (truth.count + 1) + theirs[both], return_counts=True
    )
    regions, instances = np.divmod(pairs, truth.count + 1)
    hit = overlaps / areas[regions] > t
    matches.predicted[regions[hit] - 1] = True
    matches.instances[instances[hit] - 1] = True
    return matches


def _overlaps(labels: Int32Array, label: int, span: Int32Array, boxes: Int64Array) -> Int64Array:
    """Pixels of one instance in each of N boxes, by a summed-area table of its rectangle."""
    x_min, y_min, x_max, y_max = span
    member = labels[y_min:y_max, x_min:x_max] == label
    table = cv2.integral(member.view(np.uint8))
    # np.clip takes longer than all the rest for a handful of boxes
    x = np.minimum(np.maximum(boxes[:, ::2] - x_min, 0), member.shape[1])
    y = np.minimum(np.maximum(boxes[:, 1::2] - y_min, 0), member.shape[0])
    corners = table[y[:, :, None], x[:, None, :]].astype(np.int64)  # (N, 2, 2)
    overlaps: Int64Array = corners[:, 1, 1] - corners[:, 0, 1] - corners[:, 1, 0] + corners[:, 0, 0]
    return overlaps


def _common(
    mine: npt.NDArray[Any], corner: tuple[int, int], truth: LabelMap
) -> tuple[npt.NDArray[Any], Int32Array]:
    """The part that two rectangles of an image share, cut out of both; ``corner`` is top, left."""
    low = np.maximum(corner, (truth.top, truth.left))
    high = np.minimum(
        np.add(corner, mine.shape), np.add((truth.top, truth.left), truth.labels.shape)
    )
    high = np.maximum(low, high)
    first, second = (
        tuple(slice(a, b) for a, b in zip(low - origin, high - origin, strict=True))
        for origin in (np.array(corner), np.array((truth.top, truth.left)))
    )
    return mine[first], truth.labels[second]


def _table(values: npt.ArrayLike, columns: int, name: str) -> npt.NDArray[np.float64]:
    """Values as (N, columns) float64; an empty list is N = 0."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, columns))
    if array.ndim != 2 or array.shape[1] != columns:
        raise ValueError(f"{name} must be (N, {columns}), got shape {array.shape}")
    return array


def _no_match(invalid: BoolArray, count: int) -> Matches:
    return Matches(
        predicted=np.zeros(len(invalid), dtype=np.bool_),
        instances=np.zeros(count, dtype=np.bool_),
        invalid=invalid,
    )


def _check_threshold(t: float) -> None:
    if not 0 <= t <= 1:
        raise ValueError(f"the overlap threshold must be in [0, 1], not {t}")
