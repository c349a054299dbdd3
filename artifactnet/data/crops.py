"""Crops of entities: what is shown of one thing in an image (Q-Real, Sec. 4)."""

from __future__ import annotations

import math

import cv2
import numpy as np

from artifactnet.data.geometry import resample
from artifactnet.data.regions import Corners
from artifactnet.types import UInt8Array

MIN_SIDE = 56  # pixels; below it, processors of Qwen's kind would change the crop's aspect ratio


def crop_entity(pixels: UInt8Array, box: Corners, min_side: int = MIN_SIDE) -> UInt8Array:
    """The part of an image inside a box, without margin, enlarged (bicubic) if it is small.

    Args:
        pixels: (H, W, 3) of the image as shown.
        box: (x1, y1, x2, y2) in pixels, half-open; rounded outwards to whole pixels.
        min_side: least length of the crop's shorter side; its aspect ratio is kept.

    Returns:
        (h, w, 3) uint8.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = _whole_pixels(box, (width, height))
    crop = pixels[top:bottom, left:right]
    wide, high = crop_size(box, (width, height), min_side)
    if (high, wide) != crop.shape[:2]:
        crop = resample(crop, (high, wide), cv2.INTER_CUBIC)
    return np.ascontiguousarray(crop)


def crop_size(
    box: Corners, image_size: tuple[int, int], min_side: int = MIN_SIDE
) -> tuple[int, int]:
    """(width, height) of what `crop_entity` makes of an image of (width, height) pixels."""
    left, top, right, bottom = _whole_pixels(box, image_size)
    width, height = right - left, bottom - top
    grow = min_side / min(width, height)
    if grow <= 1:
        return width, height
    return max(min_side, round(width * grow)), max(min_side, round(height * grow))


def _whole_pixels(box: Corners, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box rounded outwards, within an image of (width, height) pixels."""
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    return left, top, min(image_size[0], math.ceil(box[2])), min(image_size[1], math.ceil(box[3]))
