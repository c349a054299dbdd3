"""Which values of a gray mask are artifacts: the rule for every mask file without bits.

1. One or two levels: the higher one is artifact (0/255, 0/1, 1/2, 0/60, ...); a mask of a single
   level is all artifact, or empty where that level is 0.
2. More levels, and the mask is *soft*: two areas with edges that fade (anti-aliasing, blur, lossy
   compression), or one unbroken scale of grays. Half of the largest value and more is artifact.
3. More levels otherwise: they mean something (kinds of artifacts, numbers of instances), which
   only a mapping can say. Without one it is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from artifactnet.data.notices import notice
from artifactnet.taxonomy import ARTIFACT, BY_LABEL, NO_ARTIFACT, UNCATEGORIZED_BIT
from artifactnet.types import ArtifactNetError, UInt8Array

_FEW = 16  # levels: with fewer, none of them is an accident of compression
_MOST = 65536  # levels that are told apart
_NEAR = 1 / 16  # of the range: areas whose levels differ less are one, where there are many levels
_JUMP = 1 / 8  # of the range: neighbours on an unbroken scale differ less
_AREA = 0.25  # share of a level's pixels inside 2x2 squares of it, from which on it has an area
_OWN = 0.3  # share of the pixels between two areas that lie in third ones, from which on they count
_PREVAILING = 0.75  # share of the pixels of a mask that was a JPEG that still have its two levels
_LISTED = 12  # levels in an error


def artifact_pixels(
    values: npt.NDArray[Any],
    name: str,
    *,
    lossy: bool = False,
    mapping: Mapping[int, int] | None = None,
) -> UInt8Array:
    """Bit field of a gray mask, by the rule above or a mapping.

    Args:
        values: (H, W) integers or floats, as they are stored.
        name: of the file, for errors.
        lossy: the file is of a lossy format, so that no level is exact.
        mapping: level -> bits, see `parse_mapping`; it must name every level that occurs.

    Returns:
        (H, W) uint8; without a mapping bit 0 where there is an artifact.

    Raises:
        ArtifactNetError: more than two levels that are no soft mask, or a level that the mapping
            lacks, or values below 0 or not finite.
    """
    if not (values.min() >= 0 and np.isfinite(values.max())):  # false of NaN too
        raise ArtifactNetError(
            f"{name}: a mask has no values below 0, infinite ones or NaN; save it as 8-bit gray"
        )
    levels, indices = _find_levels(values)
    if mapping is not None and not lossy:
        return _mapped(levels, indices, name, mapping)
    if len(levels) == 1:
        marked = np.full(values.shape, levels[0] > 0)
    elif len(levels) == 2:
        marked = indices == 1
    elif mapping is None and _is_soft(indices, levels.astype(np.float64), lossy):
        marked = values >= levels[-1] / 2
        notice(
            "masks are soft: at least half of their largest value is artifact",
            f"{name}: a soft mask of {len(levels)} levels; where it is at least "
            f"{levels[-1] / 2:g}, half of its largest value, it is artifact",
        )
    else:
        raise ArtifactNetError(f"{name}: {_advice(levels, indices, lossy)}")
    return marked.astype(np.uint8) * np.uint8(UNCATEGORIZED_BIT)


def parse_mapping(mapping: Mapping[str, str]) -> dict[int, int] | None:
    """Bits of each level of a mask: its meaning is a category's label, ``artifact`` or ``none``.

    Args:
        mapping: level, in digits -> meaning.

    Returns:
        None for an empty mapping.

    Raises:
        ValueError: a level is no integer of 0 or more, or a meaning unknown.
    """
    bits = {ARTIFACT: UNCATEGORIZED_BIT, NO_ARTIFACT: 0}
    bits.update({label: category.bit for label, category in BY_LABEL.items()})
    for level, meaning in mapping.items():
        if not level.isdecimal():
            raise ValueError(f"level {level!r} is no integer of 0 or more")
        if meaning not in bits:
            raise ValueError(f"level {level} is {meaning!r}; known: {', '.join(bits)}")
    return {int(level): bits[meaning] for level, meaning in mapping.items()} or None


def _mapped(
    levels: npt.NDArray[Any],
    indices: npt.NDArray[np.uint16],
    name: str,
    mapping: Mapping[int, int],
) -> UInt8Array:
    known = {0: 0, **mapping}
    missing = [level for level in levels.tolist() if level not in known]
    if missing:
        raise ArtifactNetError(
            f"{name}: its {_listing(missing)} are not in data.mask_levels; say what they mean "
            f"({ARTIFACT}, {NO_ARTIFACT} or a category's label)"
        )
    return np.array([known[level] for level in levels.tolist()], np.uint8)[indices]


def _advice(levels: npt.NDArray[Any], indices: npt.NDArray[np.uint16], lossy: bool) -> str:
    if lossy:
        return (
            "more than two levels, blurred by lossy compression, so what they mean is lost; save "
            "the mask as PNG"
        )
    shares = np.bincount(indices.ravel()) / indices.size
    # specks at edges tell nothing: those that cover most come first
    largest = sorted(np.argsort(-shares, kind="stable")[:_LISTED].tolist())
    return (
        f"{len(levels)} levels ({_listing(levels[largest].tolist(), len(levels))}), which are "
        "neither two nor a soft mask; say what each means with data.mask_levels={LEVEL: MEANING} "
        f"({ARTIFACT}, {NO_ARTIFACT} or a category's label), or save 0 and 255 alone"
    )


def _listing(levels: list[Any], total: int = 0) -> str:
    shown = ", ".join(f"{level:g}" for level in levels[:_LISTED])
    return f"levels {shown}" if not total else shown + (", ..." if total > len(levels) else "")


def _find_levels(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint16]]:
    """The levels that occur, ascending, and (H, W) which of them each pixel has."""
    if values.dtype in (np.uint8, np.uint16):  # without sorting millions of pixels
        levels = np.flatnonzero(np.bincount(values.ravel()))
        place: npt.NDArray[np.uint16] = np.zeros(int(levels[-1]) + 1, np.uint16)
        place[levels] = np.arange(len(levels), dtype=np.uint16)
        return levels, place[values]
    levels, indices = np.unique(values, return_inverse=True)
    if len(levels) > _MOST:  # a scale of floats; its steps are finer than any rule needs
        low, high = float(levels[0]), float(levels[-1])
        return levels, np.rint((values - low) / (high - low) * (_MOST - 1)).astype(np.uint16)
    return levels, indices.reshape(values.shape).astype(np.uint16)


def _is_soft(indices: npt.NDArray[np.uint16], levels: npt.NDArray[np.float64], lossy: bool) -> bool:
    """Whether more than two levels are two areas with fading edges, or one scale of grays."""
    scale = (levels - levels[0]) / (levels[-1] - levels[0])
    flat = _flat_pixels(indices)
    counts = np.bincount(indices.ravel(), minlength=len(levels))
    inside = np.bincount(indices[flat], minlength=len(levels))
    has_area = inside >= np.maximum(_AREA * counts, 1)
    if len(levels) <= _FEW and not lossy:
        fading = np.bincount(indices[_fading_pixels(indices)], minlength=len(levels))
        has_area |= 2 * fading[: len(levels)] < counts  # lines too thin for a square
        return not has_area[1:-1].any() or _is_recompressed(scale, counts)
    areas = np.flatnonzero(has_area)
    if len(areas) <= 2:
        return True
    groups = np.split(areas, np.flatnonzero(np.diff(scale[areas]) > _NEAR) + 1)
    if len(groups) > 2:
        between = np.arange(groups[0][-1] + 1, groups[-1][0])
        own = np.concatenate(groups[1:-1])
        if inside[own].sum() >= _OWN * counts[between].sum():
            return False
    return not _has_jumps(scale[indices], flat)


def _is_recompressed(scale: npt.NDArray[np.float64], counts: npt.NDArray[np.intp]) -> bool:
    """Whether all levels are near 0 or white, several at both, each with one that prevails.

    Such is a mask that was a JPEG once; 0, 1 and 255 are not (a class, and pixels to ignore).
    """
    low, high = counts[scale <= _NEAR], counts[scale >= 1 - _NEAR]
    if min(len(low), len(high)) < 2 or len(low) + len(high) < len(scale):
        return False
    return bool(low.max() + high.max() >= _PREVAILING * counts.sum())


def _fading_pixels(indices: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """(H, W): pixels with a lower and a higher one among their eight neighbours."""
    square = np.ones((3, 3), np.uint8)
    few = indices.astype(np.uint8)  # at most `_FEW`
    return np.asarray((cv2.erode(few, square) < few) & (cv2.dilate(few, square) > few), np.bool_)


def _flat_pixels(indices: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """(H, W): pixels inside some 2x2 square of one level."""
    flat = np.zeros(indices.shape, bool)
    if min(indices.shape) < 2:
        return flat
    corner = indices[:-1, :-1]
    square = (corner == indices[1:, :-1]) & (corner == indices[:-1, 1:])
    square &= corner == indices[1:, 1:]
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            flat[rows, columns] |= square
    return flat


def _has_jumps(scaled: npt.NDArray[np.float64], flat: npt.NDArray[np.bool_]) -> bool:
    """Whether areas between the darkest and the brightest border on others without a transition.

    Numbers of instances (1, 2, 3, ...) are as close to one another as the grays of a slope, but
    their areas are next to 0.
    """
    between = (scaled > 2 * _NEAR) & (scaled < 1 - 2 * _NEAR)
    if not between.any() or flat[between].mean() < 0.5:
        return False
    steps = []
    for one, other, middle in (
        (scaled[1:], scaled[:-1], between[1:] | between[:-1]),
        (scaled[:, 1:], scaled[:, :-1], between[:, 1:] | between[:, :-1]),
    ):
        difference = np.abs(one - other)
        steps.append(difference[(difference > 0) & middle])
    return bool(np.median(np.concatenate(steps)) > _JUMP)
