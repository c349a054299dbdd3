"""From a predicted mask to separate regions: outline, box, category, area, confidence."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED, UNCATEGORIZED_BIT
from artifactnet.types import Float32Array, Instance, UInt8Array


def find_instances(
    mask: UInt8Array, probabilities: Float32Array, artifact: Float32Array, min_area: int = 1
) -> tuple[Instance, ...]:
    """Connected regions of a mask; diagonal neighbours belong together.

    Every category is looked at on its own, since categories may overlap.

    Args:
        mask: (H, W) bit field, see `artifactnet.taxonomy`.
        probabilities: (7, H, W) in [0, 1], of each category.
        artifact: (H, W) in [0, 1], of any artifact: the confidence of uncategorised regions.
        min_area: smaller regions, in pixels, are left out.

    Returns:
        In the order of the taxonomy, uncategorised ones last; within a category the largest
        first, and of equally large ones the upper, then the left one.

    Raises:
        ValueError: the shapes do not belong together, or ``min_area`` is below 1.
    """
    if min_area < 1:
        raise ValueError(f"min_area must be 1 or more, not {min_area}")
    expected = (len(CATEGORIES), *mask.shape)
    if probabilities.shape != expected or artifact.shape != mask.shape:
        raise ValueError(
            f"a mask of {mask.shape} goes with probabilities of {expected}, not "
            f"{probabilities.shape}, and a map of {mask.shape}, not {artifact.shape}"
        )
    found: list[Instance] = []
    for category in CATEGORIES:
        plane = probabilities[category.index - 1]
        found += _regions(mask & np.uint8(category.bit), plane, category.label, min_area)
    found += _regions(mask & np.uint8(UNCATEGORIZED_BIT), artifact, UNCATEGORIZED, min_area)
    return tuple(found)


def _regions(
    plane: UInt8Array, probability: Float32Array, label: str, min_area: int
) -> list[Instance]:
    """Instances of one category; non-zero pixels of ``plane`` belong to it."""
    if not plane.any():
        return []
    labelled: Any = cv2.connectedComponentsWithStats(plane, connectivity=8)
    count, regions, stats, _ = labelled
    inside = np.flatnonzero(plane)
    sums = np.bincount(regions.ravel()[inside], probability.ravel()[inside], minlength=count)
    numbers = [n for n in range(1, count) if stats[n, cv2.CC_STAT_AREA] >= min_area]
    outlines = _outlines(plane, regions, set(numbers))
    found = []
    for number in numbers:
        left, top, width, height, area = (int(value) for value in stats[number])
        found.append(
            Instance(
                category=label,
                box=(left, top, left + width, top + height),
                area=area,
                confidence=min(1.0, float(sums[number]) / area),  # a sum rounds
                contours=tuple(outlines[number]),
            )
        )
    return sorted(found, key=lambda instance: (-instance.area, instance.box[1], instance.box[0]))


def _outlines(
    plane: UInt8Array, regions: npt.NDArray[np.int32], wanted: set[int]
) -> dict[int, list[npt.NDArray[np.int32]]]:
    """Outer contour and holes of each wanted region, found in one pass over the plane."""
    traced: Any = cv2.findContours(plane, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    contours, tree = traced
    found: dict[int, list[npt.NDArray[np.int32]]] = {}
    owners: dict[int, int] = {}
    parents = [int(node[3]) for node in tree[0]]
    for k, contour in enumerate(contours):
        if parents[k] < 0:
            x, y = contour[0, 0]
            owners[k] = int(regions[y, x])
            if owners[k] in wanted:
                found[owners[k]] = [_points(contour)]
    for k, contour in enumerate(contours):
        if parents[k] >= 0 and owners[parents[k]] in wanted:
            found[owners[parents[k]]].append(_points(contour))
    return found


def _points(contour: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    return contour.reshape(-1, 2)
