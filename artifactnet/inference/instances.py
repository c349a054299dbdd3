"""From a predicted mask to separate regions: outline, box, category, area, confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from artifactnet.data.geometry import Geometry, restore_map
from artifactnet.models.heads import segmentation
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED, UNCATEGORIZED_BIT
from artifactnet.types import ArtifactNetError, Float32Array, Instance, UInt8Array

_STRIP = 1 << 20  # pixels that are turned into a mask at once, which bounds the memory it takes


def frame_probabilities(logits: Tensor, size: tuple[int, int]) -> Float32Array:
    """Probability of each category on a model's frame.

    The logits are interpolated, not the probabilities, as in training.

    Args:
        logits: (K, h, w) of one image, K = 8 (softmax) or 7 (sigmoids).
        size: height and width of the frame, pixels.

    Returns:
        (7, H, W) in [0, 1].

    Raises:
        ArtifactNetError: a value is not finite.
    """
    each = segmentation.probabilities(logits[None], size)[0][0]
    if not bool(torch.isfinite(each).all()):
        raise ArtifactNetError("the model's map of artifacts is not a number (NaN)")
    planes: Float32Array = each.numpy()
    return planes


def restore_planes(planes: Float32Array, geometry: Geometry) -> Float32Array:
    """The (7, h, w) planes of a frame at the original size, (7, H0, W0); pixels not seen are 0."""
    restored = np.empty((len(planes), *geometry.original), np.float32)
    for plane, into in zip(planes, restored, strict=True):  # one at a time: they may be large
        into[:] = restore_map(plane, geometry)
    return restored


def find_artifacts(
    categories: Float32Array, threshold: float, exclusive: bool, known: Sequence[int]
) -> tuple[Float32Array, UInt8Array]:
    """Probability of any artifact, and the mask.

    Both come from the categories at the original size, so that the mask is set exactly where the
    map exceeds the threshold. (The largest of resampled planes is not the resampled largest
    plane; a mask from the latter had rims without a category.)

    Args:
        categories: (7, H, W) in [0, 1].
        threshold: artifact if above, strictly.
        exclusive: the categories share one softmax, so any artifact has their sum; otherwise
            each has its own sigmoid, and any artifact has the largest.
        known: indices 1..7 of the categories that the model was trained on.

    Returns:
        (H, W) float32 in [0, 1] and (H, W) uint8 bit field, see `segmentation.bit_field`.

    Raises:
        ValueError: not seven planes.
    """
    if categories.ndim != 3 or len(categories) != len(CATEGORIES):
        raise ValueError(f"expected (7, H, W) probabilities, got shape {categories.shape}")
    height, width = categories.shape[1:]
    artifact = np.empty((height, width), np.float32)
    mask = np.zeros((height, width), np.uint8)
    step = max(1, _STRIP // width)
    for top in range(0, height, step):
        rows = slice(top, top + step)
        strip = categories[:, rows]
        some = segmentation.any_artifact_of_planes(strip, exclusive)
        artifact[rows] = some
        above = some > threshold  # few pixels as a rule, and the choice among seven is slow
        each = torch.from_numpy(strip[:, above])[None, :, None]
        any_of_them = torch.from_numpy(some[above])[None, None]
        bits = segmentation.bit_field(each, any_of_them, threshold, exclusive, known)
        mask[rows][above] = bits.numpy()[0, 0]
    return artifact, mask


def find_instances(
    mask: UInt8Array, probabilities: Float32Array, artifact: Float32Array, min_area: int = 1
) -> tuple[Instance, ...]:
    """Connected regions of each category in a mask; diagonal neighbours belong together.

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
    instances: list[Instance] = []
    for category in CATEGORIES:
        plane = probabilities[category.index - 1]
        instances += _regions(mask & np.uint8(category.bit), plane, category.label, min_area)
    instances += _regions(mask & np.uint8(UNCATEGORIZED_BIT), artifact, UNCATEGORIZED, min_area)
    return tuple(instances)


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
    instances = []
    for number in numbers:
        left, top, width, height, area = (int(value) for value in stats[number])
        instances.append(
            Instance(
                category=label,
                box=(left, top, left + width, top + height),
                area=area,
                confidence=min(1.0, float(sums[number]) / area),  # a sum rounds
                contours=tuple(outlines[number]),
            )
        )
    return sorted(instances, key=lambda each: (-each.area, each.box[1], each.box[0]))


def _outlines(
    plane: UInt8Array, regions: npt.NDArray[np.int32], numbers: set[int]
) -> dict[int, list[npt.NDArray[np.int32]]]:
    """Outer contour and holes of each numbered region, in one pass over the plane."""
    traced: Any = cv2.findContours(plane, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    contours, tree = traced
    outlines: dict[int, list[npt.NDArray[np.int32]]] = {number: [] for number in numbers}
    owners: dict[int, int] = {}
    parents = [int(node[3]) for node in tree[0]]
    for k in sorted(range(len(contours)), key=lambda k: parents[k] >= 0):  # holes last
        x, y = contours[k][0, 0]
        owners[k] = int(regions[y, x]) if parents[k] < 0 else owners[parents[k]]
        if owners[k] in numbers:
            outlines[owners[k]].append(contours[k].reshape(-1, 2))
    return outlines
