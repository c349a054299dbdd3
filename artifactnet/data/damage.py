"""Damage that images meet on their way (FakeXplainer, Table 5), to pixels and to their truth.

Levels change decoded pixels at their own size, before any model's preprocessing:

- ``original``: nothing.
- ``jpegQ``, ``webpQ``: saved as JPEG (4:2:0) or lossy WebP of quality Q, and decoded again.
- ``crop``: a window of `CROP` of each side, at a place that depends on seed and image alone.
- ``half``: both sides halved, bicubic with antialiasing.
- ``blur1``: Gaussian, sigma 1 pixel.

The paper does not say how much it crops; 0.8 is our reading. WebP and blur are ours, too.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from artifactnet.data.geometry import Box, resample_nearest
from artifactnet.data.images import JPEG_SIDE, decode_image, encode_jpeg, encode_webp
from artifactnet.data.regions import Corners
from artifactnet.types import ArtifactNetError, UInt8Array

Size = tuple[int, int]  # height, width
Kind = Literal["original", "jpeg", "webp", "crop", "half", "blur"]

ORIGINAL = "original"
LEVELS = (ORIGINAL, "jpeg80", "jpeg30", "crop", "half")  # of Table 5
CROP = 0.8  # of each side; our reading
LEAST_CROP = 32  # pixels a side
WEBP_SIDE = 16383  # longest side the format holds, pixels
_PLAIN: dict[str, Kind] = {ORIGINAL: "original", "crop": "crop", "half": "half", "blur1": "blur"}
_ENCODED = re.compile(r"(jpeg|webp)([1-9][0-9]?|100)")
_BLUR_SIZE = (9, 9)  # pixels: four sigma to each side


@dataclass(frozen=True, slots=True)
class Level:
    """A kind of damage; ``quality`` is that of an encoder, 1..100, and 0 without one."""

    name: str
    kind: Kind
    quality: int = 0


def parse_level(name: str) -> Level:
    """The level of a name.

    Raises:
        ArtifactNetError: there is none; the message lists all.
    """
    if name in _PLAIN:
        return Level(name, _PLAIN[name])
    found = _ENCODED.fullmatch(name)
    if found is None:
        raise ArtifactNetError(
            f"unknown level {name!r:.80}; known: {', '.join(_PLAIN)}, and jpegQ and webpQ of a "
            "quality Q from 1 to 100 (jpeg80)"
        )
    return Level(name, "jpeg" if found[1] == "jpeg" else "webp", int(found[2]))


def as_jpeg(pixels: UInt8Array, quality: int) -> UInt8Array:
    """(H, W, 3) pixels after saving as JPEG (4:2:0) and decoding.

    Raises:
        ArtifactNetError: they are more than a JPEG file can hold.
    """
    _check_side(pixels, JPEG_SIDE, "JPEG")
    return decode_image(encode_jpeg(pixels, quality), f"JPEG {quality}")


def as_webp(pixels: UInt8Array, quality: int) -> UInt8Array:
    """(H, W, 3) pixels after saving as lossy WebP and decoding.

    Raises:
        ArtifactNetError: they are more than a WebP file can hold.
    """
    _check_side(pixels, WEBP_SIDE, "WebP")
    return decode_image(encode_webp(pixels, quality), f"WebP {quality}")


def _check_side(pixels: UInt8Array, most: int, what: str) -> None:
    height, width = pixels.shape[:2]
    if max(height, width) > most:
        raise ArtifactNetError(f"{width}x{height} pixels are more than a {what} file can hold")


def halve(pixels: UInt8Array) -> UInt8Array:
    """(H, W, 3) pixels at half their size, bicubic with antialiasing, at least 1 pixel a side."""
    height, width = half_size((pixels.shape[0], pixels.shape[1]))
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def half_size(size: Size) -> Size:
    """Half of a size, rounded half up, at least 1 pixel a side."""
    height, width = (max(1, (side + 1) // 2) for side in size)
    return height, width


def blur(pixels: UInt8Array) -> UInt8Array:
    """(H, W, 3) pixels after a Gaussian of sigma 1, mirrored at the borders."""
    return np.asarray(cv2.GaussianBlur(pixels, _BLUR_SIZE, 1.0, borderType=cv2.BORDER_REFLECT))


def crop_window(size: Size, seed: int, uid: str) -> Box:
    """The window of an image that ``crop`` keeps.

    Args:
        size: (height, width) of the image, pixels.
        seed: of the experiment.
        uid: of the image, ``GENERATOR/UID``.

    Raises:
        ArtifactNetError: a side of the window is below `LEAST_CROP`.
    """
    height, width = (math.floor(CROP * side + 0.5) for side in size)
    if min(height, width) < LEAST_CROP:
        raise ArtifactNetError(
            f"a crop of {width}x{height} pixels is too small: at least {LEAST_CROP} a side"
        )
    top = _draw(size[0] - height + 1, seed, uid, "y")
    left = _draw(size[1] - width + 1, seed, uid, "x")
    return Box(top, left, height, width)


def _draw(count: int, seed: int, uid: str, axis: str) -> int:
    """One of 0..count-1, by names alone and never by the order of images."""
    text = f"{seed}\ncrop\n{uid}\n{axis}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") * count >> 64


def damage_pixels(pixels: UInt8Array, level: Level, seed: int, uid: str) -> UInt8Array:
    """Damaged pixels of an image; those of ``original`` are the same array.

    Args:
        pixels: (H, W, 3), sRGB.
        level: what is done.
        seed, uid: see `crop_window`.

    Returns:
        (h, w, 3).

    Raises:
        ArtifactNetError: the image is too large for an encoder, or too small for a crop.
    """
    if level.kind == "jpeg":
        return as_jpeg(pixels, level.quality)
    if level.kind == "webp":
        return as_webp(pixels, level.quality)
    if level.kind == "crop":
        window = crop_window((pixels.shape[0], pixels.shape[1]), seed, uid)
        return np.ascontiguousarray(pixels[window.slices])
    if level.kind == "half":
        return halve(pixels)
    return blur(pixels) if level.kind == "blur" else pixels


def damage_boxes(
    boxes: Sequence[Corners], size: Size, level: Level, seed: int, uid: str
) -> list[Corners]:
    """Boxes of an image where the damage puts them; one that it cuts off entirely is dropped.

    Args:
        boxes: (x1, y1, x2, y2), pixels, half-open.
        size: (height, width) of the undamaged image.
        level, seed, uid: as of `damage_pixels`.

    Raises:
        ArtifactNetError: the image is too small for a crop.
    """
    if level.kind == "half":
        height, width = half_size(size)
        x, y = width / size[1], height / size[0]
        return [(x1 * x, y1 * y, x2 * x, y2 * y) for x1, y1, x2, y2 in boxes]
    if level.kind != "crop":
        return list(boxes)
    window = crop_window(size, seed, uid)
    kept = []
    for x1, y1, x2, y2 in boxes:
        left, right = (min(max(x - window.left, 0), window.width) for x in (x1, x2))
        top, bottom = (min(max(y - window.top, 0), window.height) for y in (y1, y2))
        if left < right and top < bottom:
            kept.append((left, top, right, bottom))
    return kept


def damage_mask(mask: UInt8Array, level: Level, seed: int, uid: str) -> UInt8Array:
    """A (H, W) bit field where the damage puts it, nearest pixels where it is resized.

    Arguments and errors as of `damage_pixels`.
    """
    size = mask.shape[0], mask.shape[1]
    if level.kind == "half":
        return resample_nearest(mask, half_size(size))
    return mask[crop_window(size, seed, uid).slices] if level.kind == "crop" else mask
