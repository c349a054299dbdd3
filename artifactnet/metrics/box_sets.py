"""Overlap of two sets of boxes: predicted regions against annotated ones.

The IoU of FakeXplainer (Sec. 4.1) is read as that of the two unions: the area that both cover over
the area that either covers. Many small boxes that tile a large one then count as that one, and no
area counts twice. ``matched_iou`` is the other reading, which pairs boxes.

Boxes are (N, 4) floats or a list of (x1, y1, x2, y2) in pixels, half-open. Areas are exact: all
edges together cut the plane into cells, each of which is wholly inside a box or wholly outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float64] | Sequence[Sequence[float]]
Size = tuple[float, float]  # (width, height) of the image
FloatArray = npt.NDArray[np.float64]


class BoxSetAreas(NamedTuple):
    """Areas in square pixels; they add up over images, for pooled figures."""

    intersection: float  # covered by both sets
    union: float  # covered by either
    predicted: float
    truth: float


def box_set_areas(predicted: Boxes, truth: Boxes, size: Size | None = None) -> BoxSetAreas:
    """Areas that two sets of boxes cover.

    Args:
        predicted: (N, 4) boxes; empty ones count for nothing.
        truth: (M, 4) boxes, likewise.
        size: (width, height) to clip both to; None does not clip.

    Raises:
        ValueError: an array is not (N, 4), or holds NaN or infinity.
    """
    mine, theirs = _prepare(predicted, size, "predicted"), _prepare(truth, size, "truth")
    boxes = np.concatenate((mine, theirs)).T.copy().reshape(2, 2, -1)  # low and high; x and y; box
    if not boxes.size:
        return BoxSetAreas(0.0, 0.0, 0.0, 0.0)
    edges = boxes.transpose(1, 0, 2).reshape(2, -1)
    edges.sort()  # a repeated one makes a cell of no area
    before, after = edges[:, :-1], edges[:, 1:]
    # (x and y, box, cell): a box covers the cells whose column and row it covers
    inside = (boxes[0, :, :, None] <= before[:, None]) & (after[:, None] <= boxes[1, :, :, None])
    columns, rows = inside.astype(np.float32)
    cells = np.empty((4, edges.shape[1] - 1, edges.shape[1] - 1), dtype=np.bool_)
    for part, of in ((2, slice(len(mine))), (3, slice(len(mine), None))):
        # as float32, the product is one call of BLAS and counts boxes exactly up to 2^24
        np.greater(rows[of].T @ columns[of], 0, out=cells[part])
    np.logical_and(cells[2], cells[3], out=cells[0])
    np.logical_or(cells[2], cells[3], out=cells[1])
    width, height = after - before
    return BoxSetAreas(*(cells @ width @ height).tolist())


def union_iou(predicted: Boxes, truth: Boxes, size: Size | None = None) -> float:
    """IoU of the unions of two sets of boxes, in [0, 1]; 1 if both are empty.

    Arguments and errors as of `box_set_areas`.
    """
    areas = box_set_areas(predicted, truth, size)
    return areas.intersection / areas.union if areas.union > 0 else 1.0


def matched_iou(predicted: Boxes, truth: Boxes, size: Size | None = None) -> float:
    """Mean IoU over the boxes of ``truth``, each paired with one predicted box or none, in [0, 1].

    Predicted boxes choose in their order: each takes the box of ``truth`` with the nearest centre
    that is still free (the first of equally near ones). A box without a partner has IoU 0;
    surplus predicted boxes cost nothing. 1 if both sets are empty, 0 if one is.

    Arguments and errors as of `box_set_areas`.
    """
    mine, theirs = _prepare(predicted, size, "predicted"), _prepare(truth, size, "truth")
    if not len(mine) or not len(theirs):
        return 1.0 if len(mine) == len(theirs) else 0.0
    offset = _centres(mine)[:, None] - _centres(theirs)[None]
    distance = (offset**2).sum(axis=-1)  # (N, M)
    partners = []
    for row in distance[: len(theirs)]:  # then none is free
        partner = int(row.argmin())
        partners.append(partner)
        distance[:, partner] = np.inf
    left, right = mine[: len(partners)], theirs[partners]
    overlap = np.minimum(left[:, 2:], right[:, 2:]) - np.maximum(left[:, :2], right[:, :2])
    intersection = overlap.clip(min=0).prod(axis=1)
    return float((intersection / (_area(left) + _area(right) - intersection)).sum() / len(theirs))


def _prepare(boxes: Boxes, size: Size | None, name: str) -> FloatArray:
    """The boxes as (N, 4) float64, clipped, without empty ones."""
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"{name} boxes must be (N, 4), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} boxes hold NaN or infinity")
    if size is not None:
        array = np.minimum(np.maximum(array, 0.0), (*size, *size))
    return array[(array[:, 0] < array[:, 2]) & (array[:, 1] < array[:, 3])]


def _centres(boxes: FloatArray) -> FloatArray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _area(boxes: FloatArray) -> FloatArray:
    area: FloatArray = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return area
