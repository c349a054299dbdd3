"""Defect regions circled in red: what the annotating model sees (HEIE Sec. 3.4, stage 1)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from artifactnet.annotation.pictures import sent_size, to_jpeg
from artifactnet.data.geometry import resample, resample_nearest
from artifactnet.data.heatmaps import read_gray, resize_heatmap, same_aspect
from artifactnet.types import ArtifactNetError, UInt8Array

THRESHOLD = 0.5  # of a heatmap: a defect from here on
RED = (255, 0, 0)
DRAWING = "1"  # version of the drawing: raised when the same image would be drawn differently
_WIDTH = 1 / 200  # of the longer side
_MIN_WIDTH = 2  # pixels
Region = npt.NDArray[np.bool_]


def read_region(path: str | Path, size: tuple[int, int], bit_field: bool) -> Region:
    """Read the defects of an image from its map.

    Args:
        path: a gray mask or heatmap, where 255 is artifact; or a bit-field mask.
        size: (H, W) of the image; a map of another size and the same aspect ratio is resized.
        bit_field: any bit of a pixel (see `artifactnet.taxonomy`) marks a defect; otherwise values
            from `THRESHOLD` on do.

    Raises:
        ArtifactNetError: the map cannot be read, is not gray, has another aspect ratio than the
            image, or marks nothing.
    """
    name = str(path)
    gray = read_gray(path, name)
    if bit_field:
        if not same_aspect(gray.shape, size):
            raise ArtifactNetError(
                f"{name}: it is {gray.shape[1]}x{gray.shape[0]}, its image {size[1]}x{size[0]}: "
                "another aspect ratio"
            )
        region = resample_nearest(gray, size) > 0
    else:
        region = resize_heatmap(gray, size, name) >= THRESHOLD
    if not region.any():
        reason = "it marks nothing"
        if gray.max() and not bit_field:
            reason += (
                f": its largest value is {gray.max()} of 255, below {THRESHOLD}; are these bit "
                "fields of categories (--bit-fields)?"
            )
        raise ArtifactNetError(f"{name}: {reason}")
    return np.asarray(region, np.bool_)


def circle_defects(image: UInt8Array, region: Region) -> UInt8Array:
    """Copy of a (H, W, 3) image with a red line around every defect of the (H, W) region.

    The line runs outside of the defect, which stays visible; at the image's border it runs inside
    so that it is closed. Defects closer to each other than the line is wide share it. It is 1/200
    of the longer side wide, at least 2 pixels.
    """
    width = max(_MIN_WIDTH, round(_WIDTH * max(region.shape)))
    side = 2 * width + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    line = (cv2.dilate(region.astype(np.uint8), disc) > 0) & ~region
    inner = np.zeros_like(region)
    inner[width:-width, width:-width] = True
    drawn = np.ascontiguousarray(image).copy()
    drawn[line | (region & ~inner)] = RED
    return drawn


def draw_jpeg(image: UInt8Array, region: Region) -> bytes:
    """The JPEG that is sent: at most `MAX_SIDE` pixels a side, with its defects circled."""
    size = sent_size((region.shape[0], region.shape[1]))
    if size != region.shape:
        image = resample(image, size)
        # averaged, so that a defect thinner than a new pixel does not fall between two
        region = resample(region.astype(np.float32), size) > 0
    return to_jpeg(circle_defects(image, region))
