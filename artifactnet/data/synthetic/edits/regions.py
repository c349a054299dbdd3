"""Where an edit happens: organic regions, soft borders, and object-like segments."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from artifactnet.types import Float32Array, UInt8Array

BoolArray = npt.NDArray[np.bool_]
_REFERENCE_SIDE = 192.0  # pixel amounts in this package are meant at this short side
_MIN_SHARE, _MAX_SHARE = 0.04, 0.16


def unit(image: UInt8Array) -> float:
    """Pixels of this image per pixel of a 192-px image, so that edits look alike at any size."""
    return min(image.shape[:2]) / _REFERENCE_SIDE


def pixels(image: UInt8Array, amount: float, least: int = 1) -> int:
    """``amount`` pixels at 192 px, rounded to whole pixels of ``image``."""
    return max(least, round(amount * unit(image)))


def random_share(rng: np.random.Generator) -> float:
    """Area share of a region, uniform in [0.04, 0.16]."""
    return float(rng.uniform(_MIN_SHARE, _MAX_SHARE))


def outline(rng: np.random.Generator, area: float) -> npt.NDArray[np.float64]:
    """Smooth random closed curve around (0, 0) with the given area: (64, 2) x, y in pixels."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = np.ones_like(angle)
    for wave in range(2, 6):
        amount = rng.uniform(0, 0.45 / wave)
        radius += amount * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    stretch = rng.uniform(1.0, 1.5)
    x, y = radius * np.cos(angle) * stretch, radius * np.sin(angle) / stretch
    turn = rng.uniform(0, np.pi)
    points = np.stack(
        [x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1
    )
    return points * np.sqrt(area / cv2.contourArea(points.astype(np.float32)))


def place(
    points: npt.NDArray[np.float64], center: tuple[float, float], shape: tuple[int, int]
) -> BoolArray:
    """Filled curve at ``center`` (x, y), moved as little as needed to lie inside (H, W)."""
    mask = np.zeros(shape, np.uint8)
    low, high = points.min(0), points.max(0)
    size = np.array([shape[1] - 1, shape[0] - 1], np.float64)
    # A curve larger than the image is centred and cut.
    room = np.maximum(size - high, -low)
    at = np.clip(np.array(center), np.minimum(-low, size - high), room)
    cv2.fillPoly(mask, [np.round(points + at).astype(np.int32)], 1)
    return mask.astype(bool)


def random_point(image: UInt8Array, rng: np.random.Generator) -> tuple[float, float]:
    """Uniform random x, y."""
    height, width = image.shape[:2]
    return float(rng.uniform(0, width)), float(rng.uniform(0, height))


def busy_point(image: UInt8Array, rng: np.random.Generator) -> tuple[float, float]:
    """The most detailed of five random x, y: many edits are invisible on a plain sky."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (48, 48), interpolation=cv2.INTER_AREA).astype(np.float32)
    dx, dy = cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)
    detail = cv2.boxFilter(np.hypot(dx, dy), -1, (11, 11), borderType=cv2.BORDER_CONSTANT)
    spots = rng.integers(0, 48, (5, 2))
    row, column = spots[np.argmax(detail[spots[:, 0], spots[:, 1]])]
    height, width = image.shape[:2]
    return (column + 0.5) * width / 48, (row + 0.5) * height / 48


def blob(
    image: UInt8Array, rng: np.random.Generator, *, busy: bool = True, share: float | None = None
) -> BoolArray:
    """Organic region, (H, W) bool, of a share of the image's area (None: drawn).

    ``busy`` prefers detailed places.
    """
    height, width = image.shape[:2]
    share = random_share(rng) if share is None else share
    center = busy_point(image, rng) if busy else random_point(image, rng)
    return place(outline(rng, share * height * width), center, (height, width))


def feather(mask: BoolArray, sigma: float) -> Float32Array:
    """Gaussian-softened mask in [0, 1]; ``sigma`` in pixels."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(sigma, 0.3))
    return np.asarray(soft, np.float32)


def cut_out(image: npt.NDArray[Any], alpha: Float32Array) -> UInt8Array:
    """Pale rim along the border of ``alpha``, as carelessly cut-out pieces have.

    Without it a piece of a star field or of a lawn, moved within it, is not an artifact that
    anyone could see.
    """
    rim = 4.0 * alpha * (1.0 - alpha)  # 1 where the piece is half there
    rim = cv2.GaussianBlur(rim, (0, 0), 0.6 * unit(image))
    lit = image + (0.75 * rim)[..., None] * (235.0 - image)
    return lit.clip(0, 255).astype(np.uint8)


def bounds(mask: BoolArray) -> tuple[int, int, int, int]:
    """Bounding box of a non-empty mask: top, bottom, left, right (half-open)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def segment(image: UInt8Array, rng: np.random.Generator) -> BoolArray:
    """Something like an object: a connected area of similar colour, or an organic blob.

    A flood fill from a random point at 64 px; areas outside 4-22 % of the image are no use
    as objects, and after six points a blob at a detailed place stands in.
    """
    height, width = image.shape[:2]
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    small = cv2.medianBlur(small, 5)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
    for _ in range(6):
        x, y = (int(v) for v in rng.integers(4, 60, 2))
        tolerance = (float(rng.uniform(15, 45)),) * 3
        filled = np.zeros((66, 66), np.uint8)
        cv2.floodFill(small, filled, (x, y), (0, 0, 0), tolerance, tolerance, flags)
        area = cv2.morphologyEx(filled[1:-1, 1:-1], cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        area = cv2.morphologyEx(area, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
        contours, _ = cv2.findContours(area, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if not contours:
            continue
        best = max(contours, key=cv2.contourArea)
        if 0.04 <= cv2.contourArea(best) / 64**2 <= 0.22:
            solid = cv2.drawContours(np.zeros((64, 64), np.float32), [best], -1, 1.0, -1)
            solid = cv2.GaussianBlur(solid, (0, 0), 1.0)
            return cv2.resize(solid, (width, height)) > 0.5
    return blob(image, rng, share=float(rng.uniform(0.06, 0.16)))
