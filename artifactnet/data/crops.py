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
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right, bottom = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
    crop = pixels[top:bottom, left:right]
    grow = min_side / min(crop.shape[:2])
    if grow > 1:
        sides = (max(min_side, round(side * grow)) for side in crop.shape[:2])
        crop = resample(crop, (next(sides), next(sides)), cv2.INTER_CUBIC)
    return np.ascontiguousarray(crop)
