"""Artifact instances: numbered connected regions of an image.

Instances of a category, by the benchmark's rule (X-AIGD, A.5 and its public metric
description): the union of its polygons, dilated once with a 5x5 rectangle, 8-connected
components, each intersected with the undilated union.

No mask of the image's size is made: labels cover the rectangle around the artifacts only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from artifactnet.types import UInt8Array

BoolArray = npt.NDArray[np.bool_]
Int32Array = npt.NDArray[np.int32]
Span = tuple[int, int, int, int]  # x_min, y_min, x_max, y_max, half-open

_KERNEL = np.ones((5, 5), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Numbered regions of an image, kept in a rectangle around them.

    Attributes:
        labels: (h, w) int32; 0 is background, 1..count are the regions.
        count: number of regions. Their order has no meaning.
        spans: (count, 4) int32, for each region a rectangle (x_min, y_min, x_max, y_max),
            half-open, inside ``labels``, that holds all its pixels.
        top: row of the image at which ``labels`` begins.
        left: column of the image at which ``labels`` begins.
        height: of the image, pixels.
        width: of the image, pixels.
    """

    labels: Int32Array
    count: int
    spans: Int32Array
    top: int
    left: int
    height: int
    width: int


def instance_labels(union: UInt8Array | BoolArray) -> LabelMap:
    """Ground-truth instances of a mask (H, W), nonzero where the category is."""
    return _label(union, joined=True)


def region_labels(mask: UInt8Array | BoolArray) -> LabelMap:
    """8-connected regions of a predicted mask (H, W); nothing is dilated or joined."""
    return _label(mask, joined=False)


def polygon_instances(polygons: Sequence[Int32Array], height: int, width: int) -> LabelMap:
    """Ground-truth instances of the polygons of one category.

    Equal to drawing the polygons one by one with ``cv2.fillPoly`` into an empty image and calling
    `instance_labels`, but works only in rectangles around polygons that are close to one another.

    Args:
        polygons: each (N, 2) int32 points (x, y), truncated to integers and clipped into the
            image beforehand.
        height: of the image, pixels.
        width: of the image, pixels.

    Raises:
        ValueError: a point lies outside the image, or a polygon has no points.
    """
    if not polygons:
        return _empty(height, width)
    if not all(len(polygon) for polygon in polygons):
        raise ValueError("a polygon has no points")
    polygons = [np.ascontiguousarray(polygon, dtype=np.int32) for polygon in polygons]
    rectangles = np.array([cv2.boundingRect(polygon) for polygon in polygons], dtype=np.int32)
    spans = np.hstack([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]])
    left, top, right, bottom = _hull(spans)
    if left < 0 or top < 0 or right > width or bottom > height:
        raise ValueError(f"polygons must be clipped into the image of {width}x{height} first")
    labels = np.zeros((bottom - top, right - left), dtype=np.int32)
    boxes: list[Span] = []
    for span, members in _groups(spans):
        if len(members) == 1:  # a polygon is connected
            polygon = polygons[members[0]]
            cv2.fillPoly(labels, [polygon], (len(boxes) + 1,), offset=(-left, -top))
            boxes.append(span)
            continue
        x_min, y_min, x_max, y_max = span
        canvas = np.zeros((y_max - y_min, x_max - x_min), dtype=np.uint8)
        for index in members:  # one by one: in a single call, overlaps would cancel out
            cv2.fillPoly(canvas, [polygons[index]], (1,), offset=(-x_min, -y_min))
        numbers = cv2.connectedComponents(cv2.dilate(canvas, _KERNEL), connectivity=8)[1]
        part = labels[y_min - top : y_max - top, x_min - left : x_max - left]
        np.multiply(np.asarray(numbers) + len(boxes), canvas, out=part)
        corners = np.array([polygons[index][0] for index in members])
        owners = labels[corners[:, 1] - top, corners[:, 0] - left]
        for owner in np.unique(owners):  # rising, so spans line up with labels
            boxes.append(_hull(spans[np.array(members)[owners == owner]]))
    local = np.array(boxes, dtype=np.int32) - np.array([left, top, left, top], dtype=np.int32)
    return LabelMap(labels, len(boxes), local, top, left, height, width)


def as_plane(mask: UInt8Array | BoolArray) -> UInt8Array:
    """A mask as OpenCV takes it: contiguous uint8, nonzero inside."""
    if mask.ndim != 2:
        raise ValueError(f"a mask must be (H, W), got shape {mask.shape}")
    if mask.dtype not in (np.uint8, np.bool_):
        raise ValueError(f"a mask must be uint8 or bool, got {mask.dtype}")
    return np.ascontiguousarray(mask).view(np.uint8)


def _label(mask: UInt8Array | BoolArray, joined: bool) -> LabelMap:
    """Number the regions of a mask inside its bounding rectangle.

    The dilation needs no margin: it joins two pixels exactly if they are at most five apart, and
    then also along the straight line between them, which stays inside.
    """
    plane = as_plane(mask)
    left, top, width, height = cv2.boundingRect(plane)
    if not width:
        return _empty(*plane.shape)
    cut = np.ascontiguousarray(plane[top : top + height, left : left + width])
    linked = cv2.dilate(cut, _KERNEL) if joined else cut
    count, numbers, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(
        linked,
        8,
        cv2.CV_32S,
        cv2.CCL_BBDT,  # twice as fast as the default, with statistics
    )
    labels = np.asarray(numbers, dtype=np.int32)
    if joined:
        labels *= cut != 0
    spans = np.array(stats[1:, : cv2.CC_STAT_AREA], dtype=np.int32)  # x, y, width, height
    spans[:, 2:] += spans[:, :2]
    return LabelMap(labels, count - 1, spans, top, left, *plane.shape)


def _groups(spans: Int32Array) -> list[tuple[Span, list[int]]]:
    """Groups of rectangles with five pixels or more between them: bounding rectangle, indices."""
    groups: list[tuple[Span, list[int]]] = []
    for index, rectangle in enumerate(spans):
        span, members = _hull(rectangle[None]), [index]
        while near := [group for group in groups if _near(group[0], span)]:
            groups = [group for group in groups if group not in near]
            span = _hull(np.array([span, *(other for other, _ in near)]))
            members += [member for _, others in near for member in others]
        groups.append((span, members))
    return groups


def _near(a: Span, b: Span) -> bool:
    """Fewer than five pixels lie between the rectangles: a 5x5 dilation may join them."""
    return a[0] < b[2] + 5 and b[0] < a[2] + 5 and a[1] < b[3] + 5 and b[1] < a[3] + 5


def _hull(spans: npt.NDArray[Any]) -> Span:
    """The smallest rectangle around all of (N, 4)."""
    low, high = spans[:, :2].min(axis=0).tolist(), spans[:, 2:].max(axis=0).tolist()
    return low[0], low[1], high[0], high[1]


def _empty(height: int, width: int) -> LabelMap:
    nothing = np.zeros((0, 0), dtype=np.int32)
    return LabelMap(nothing, 0, np.zeros((0, 4), dtype=np.int32), 0, 0, height, width)
