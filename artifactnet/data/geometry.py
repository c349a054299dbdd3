"""Where pixels go: how an image comes to model size, and how a map comes back.

Every resize policy and every random crop is one and the same operation: a box of the
original is stretched onto a box of the model's frame. That makes the way back exact, never
builds an image larger than the original or the frame, and resamples each image only once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from artifactnet.types import Float32Array, UInt8Array

POLICIES = ("stretch", "crop", "pad", "reflect")
Pixels = TypeVar("Pixels", UInt8Array, Float32Array)


@dataclass(frozen=True, slots=True)
class Box:
    """Half-open rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices of the box."""
        bottom, right = self.top + self.height, self.left + self.width
        return slice(self.top, bottom), slice(self.left, right)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width


@dataclass(frozen=True, slots=True)
class Geometry:
    """How an image came to model size: ``source``, a box of the ``original``, onto ``target``.

    ``original`` is (height, width) of the image and ``size`` of the model's frame, in pixels; the
    frame outside of ``target`` is padding.
    """

    original: tuple[int, int]
    source: Box
    size: tuple[int, int]
    target: Box


def fit_geometry(original: tuple[int, int], size: tuple[int, int], policy: str) -> Geometry:
    """Geometry of a model's own preprocessing; sizes are (height, width) in pixels.

    Args:
        original: size of the image.
        size: of the model's frame.
        policy: ``stretch`` fills the frame whatever the aspect ratio; ``crop`` keeps the aspect
            ratio and the largest centred box of the frame's proportions (short side to the frame,
            centre crop), to within half a pixel of the original; ``pad`` keeps the aspect ratio and
            the whole image, centred, with padding around it; ``reflect`` is the same (what the
            padding holds is not a matter of geometry).

    Raises:
        ValueError: unknown policy, or a side below one pixel.
    """
    if min(*original, *size) < 1:
        raise ValueError(f"sides must be at least 1 pixel, got image {original}, frame {size}")
    source, target = Box(0, 0, *original), Box(0, 0, *size)
    ratios = [side / was for side, was in zip(size, original, strict=True)]
    if policy == "crop":
        source = _centred(original, [side / max(ratios) for side in size])
    elif policy in ("pad", "reflect"):
        target = _centred(size, [was * min(ratios) for was in original])
    elif policy != "stretch":
        raise ValueError(f"unknown resize policy {policy!r}; known: {', '.join(POLICIES)}")
    return Geometry(original, source, size, target)


def _centred(outer: tuple[int, int], sides: list[float]) -> Box:
    """Centred box inside ``outer``, its sides rounded to at least one whole pixel."""
    height, width = (
        min(limit, max(1, round(side))) for limit, side in zip(outer, sides, strict=True)
    )
    return Box((outer[0] - height) // 2, (outer[1] - width) // 2, height, width)


def random_window(
    original: tuple[int, int], size: tuple[int, int], scale: float, rng: np.random.Generator
) -> Geometry:
    """Geometry of "resize by ``scale`` > 0, then cut a random window of the frame's size".

    Where the resized image is smaller than the frame it lies at a random place in it. ``rng`` is
    drawn from twice per axis, whatever the sizes.
    """
    axes = []
    for was, side in zip(original, size, strict=True):
        cut = min(was, max(1, round(side / scale)))
        filled = side if was * scale >= side else max(1, round(was * scale))
        axes.append((rng.integers(was - cut + 1), cut, rng.integers(side - filled + 1), filled))
    (top, height, target_top, target_height), (left, width, target_left, target_width) = axes
    return Geometry(
        original,
        Box(int(top), int(left), height, width),
        size,
        Box(int(target_top), int(target_left), target_height, target_width),
    )


def pad_to_frame(content: Pixels, geometry: Geometry, mirror: bool) -> Pixels:
    """Frame (H, W[, C]) with ``content``, (h, w[, C]), in its target box.

    ``mirror`` fills the rest by mirroring the content at its borders, else with 0. Returns
    ``content`` itself where it fills the frame.
    """
    box, (height, width) = geometry.target, geometry.size
    if box.size == geometry.size:
        return content
    below, right = height - box.top - box.height, width - box.left - box.width
    if not mirror:
        return np.pad(content, [(box.top, below), (box.left, right), (0, 0)][: content.ndim])
    rows = _mirrored(box.height, box.top, below)
    return content[np.ix_(rows, _mirrored(box.width, box.left, right))]


def _mirrored(length: int, before: int, after: int) -> npt.NDArray[np.int64]:
    """Indices 2 1 0 0 1 2 2 1 0 ...: a mirror at each end, as often as it takes."""
    at = np.arange(-before, length + after) % (2 * length)
    return np.minimum(at, 2 * length - 1 - at)


def resample(array: Pixels, size: tuple[int, int], grow: int = cv2.INTER_LINEAR) -> Pixels:
    """Resize (H, W[, C]) to ``size``: area averages along axes that shrink, else interpolation.

    ``grow`` is the OpenCV interpolation along axes that grow.
    """
    shrunk = (min(array.shape[0], size[0]), min(array.shape[1], size[1]))
    # Two steps, because OpenCV's area mode is linear as soon as one of the axes grows.
    for step, mode in ((shrunk, cv2.INTER_AREA), (size, grow)):
        if array.shape[:2] != step:
            resized: Any = cv2.resize(np.ascontiguousarray(array), step[::-1], interpolation=mode)
            array = resized
    return array


def resample_nearest(mask: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Resize a (H, W) bit field: each new pixel takes the old pixel under its centre.

    (OpenCV's INTER_NEAREST takes the pixel under the corner, half a pixel off the image.)
    """
    rows, columns = (
        (2 * np.arange(side) + 1) * was // (2 * side)
        for was, side in zip(mask.shape, size, strict=True)
    )
    return mask[np.ix_(rows, columns)]


def restore_map(heatmap: Float32Array, geometry: Geometry) -> Float32Array:
    """Bring an (h, w) map of the whole frame, on any grid, back to the original image.

    Returns:
        (H0, W0) float32: linear between grid points, averaged where the original is smaller than
        the frame, never outside the map's own value range. Pixels that the model did not see
        (policy ``crop``) are 0.

    Raises:
        ValueError: ``heatmap`` is not a non-empty 2-D array.
    """
    grid = np.asarray(heatmap, dtype=np.float32)
    if grid.ndim != 2 or grid.size == 0:
        raise ValueError(f"a heatmap must be a non-empty (h, w) array, got shape {grid.shape}")
    frame = resample(grid, geometry.size)[geometry.target.slices]
    seen = resample(frame, geometry.source.size)
    restored = np.zeros(geometry.original, dtype=np.float32)
    # Averages may leave the range by a rounding error, and 1.0000001 is not in [0, 1].
    restored[geometry.source.slices] = np.clip(seen, grid.min(), grid.max())
    return restored
