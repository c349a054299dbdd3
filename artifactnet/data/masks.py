"""Artifact masks: bit c of a pixel says whether category c is there (see taxonomy).

Polygons are drawn by the rule of the X-AIGD benchmark, to the pixel; the way back, from a
mask to polygons, is exact, so that written data sets read back identically.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from artifactnet.data.images import decode_levels
from artifactnet.data.mask_levels import artifact_pixels
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED_BIT, category_by_label
from artifactnet.types import ArtifactNetError, UInt8Array

_INT32 = 2.0**31 - 1


def rasterize(
    labels: Sequence[Mapping[str, Any]], height: int, width: int, where: str
) -> UInt8Array:
    """Draw X-AIGD polygons into an (H, W) uint8 bit-field mask, exactly as the benchmark does.

    Coordinates are truncated to int32, clipped into the image, and filled with ``cv2.fillPoly``
    (outline included). Every polygon is drawn on its own, and every category into its own bit, so
    overlaps add up instead of cancelling out.

    Args:
        labels: mappings with ``label`` (a category label) and ``points`` ([[x, y], ...], pixels).
        height, width: of the image, pixels.
        where: what to call the image in error messages (generator and uid, file, row).

    Raises:
        ArtifactNetError: a category is unknown, a polygon has fewer than three points, or a point
            is not a pair of finite numbers.
    """
    planes: dict[int, UInt8Array] = {}
    for label in labels:
        bit, points = parse_label(label, where)
        plane = planes.setdefault(bit, np.zeros((height, width), dtype=np.uint8))
        _clip(points, height, width)
        cv2.fillPoly(plane, [points], (bit,))
    mask = np.zeros((height, width), dtype=np.uint8)
    for plane in planes.values():
        mask |= plane
    return mask


def parse_label(label: Mapping[str, Any], where: str) -> tuple[int, npt.NDArray[np.int32]]:
    """Check one X-AIGD polygon: its bit, and (N, 2) int32 points (x, y), truncated, not clipped.

    Raises:
        ArtifactNetError: see `rasterize`.
    """
    try:
        bit = category_by_label(str(label["label"])).bit
    except ValueError as error:
        raise ArtifactNetError(f"{where}: {error}") from None
    name = f"{where}: polygon of category {label['label']!r}"
    raw = label["points"]
    count = 0 if raw is None else len(raw)
    if count < 3:
        raise ArtifactNetError(f"{name} has {count} points; at least 3 are needed")
    try:
        points = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):  # ragged, or not numbers that fit
        points = np.full(1, np.nan)
    if points.shape != (count, 2) or not np.isfinite(points).all():
        raise ArtifactNetError(f"{name} must be a list of finite [x, y] pairs")
    return bit, np.clip(points, -_INT32, _INT32).astype(np.int32)


def polygon_box(
    label: Mapping[str, Any], height: int, width: int, where: str
) -> tuple[int, int, int, int]:
    """Half-open box (x1, y1, x2, y2) around the pixels that `rasterize` draws for a polygon.

    Raises:
        ArtifactNetError: see `rasterize`.
    """
    _, points = parse_label(label, where)
    _clip(points, height, width)
    (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
    return int(x1), int(y1), int(x2) + 1, int(y2) + 1


def _clip(points: npt.NDArray[np.int32], height: int, width: int) -> None:
    """Move (N, 2) points (x, y) into the image, in place."""
    points[:, 0] = np.clip(points[:, 0], 0, width - 1)
    points[:, 1] = np.clip(points[:, 1], 0, height - 1)


def encode_polygons(mask: UInt8Array) -> list[dict[str, Any]]:
    """Turn an (H, W) bit-field mask into X-AIGD polygons; `rasterize` gives the same mask back.

    One polygon ``{"label": str, "points": [[x, y], ...]}`` per 8-connected region and category,
    ordered by category. A region with holes is cut at each hole into regions without, since a
    polygon of this format cannot hold one.

    Raises:
        ValueError: the mask has uncategorised pixels (bit 0), for which no label exists.
    """
    if (mask & UNCATEGORIZED_BIT).any():
        raise ValueError("a mask with uncategorised pixels (bit 0) has no X-AIGD labels")
    labels: list[dict[str, Any]] = []
    for item in CATEGORIES:
        plane = (mask & item.bit != 0).astype(np.uint8)
        labels += [{"label": item.label, "points": points} for points in _outlines(plane)]
    return labels


def read_mask(
    path: str | Path,
    size: tuple[int, int],
    where: str,
    mapping: Mapping[int, int] | None = None,
) -> UInt8Array:
    """Read a gray mask file as (H, W) uint8 bit field, bit 0 where there is an artifact.

    What counts as artifact: see `artifactnet.data.mask_levels`. ``size`` is (height, width) of its
    image, which ``where`` names in error messages; ``mapping`` gives the bits of each level.

    Raises:
        ArtifactNetError: the file cannot be read, is coloured or transparent, has another size than
            the image, or levels whose meaning is unknown.
    """
    values, lossy = decode_levels(path, str(path))
    if values.shape != tuple(size):
        raise ArtifactNetError(
            f"{where}: its mask {path} is {values.shape[1]}x{values.shape[0]}, the image "
            f"{size[1]}x{size[0]}; they must agree"
        )
    return artifact_pixels(values, str(path), lossy=lossy, mapping=mapping)


def _outlines(plane: UInt8Array) -> list[list[list[float]]]:
    """Polygons, as (x, y) lists, that fill exactly the non-zero pixels of ``plane``."""
    polygons = []
    pending = [(plane, 0)]
    while pending:
        part, left = pending.pop()
        count, regions = cv2.connectedComponents(part, connectivity=8)
        for index in range(1, count):
            region = (regions == index).astype(np.uint8)
            contours, tree = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
            holes = [k for k in range(len(contours)) if tree[0][k][3] >= 0]
            if not holes:
                points = [[float(x + left), float(y)] for x, y in contours[0].reshape(-1, 2)]
                # A dot or a line has one or two corners; the format asks for three, repeated ones
                # count.
                polygons.append(points + [points[-1]] * (3 - len(points)))
                continue
            x, _, width, _ = cv2.boundingRect(contours[holes[0]])
            cut = x + width // 2  # runs through the hole, so both sides lose it
            pending.append((np.ascontiguousarray(region[:, :cut]), left))
            pending.append((np.ascontiguousarray(region[:, cut:]), left + cut))
    return polygons
