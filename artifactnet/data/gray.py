"""Maps in files: heatmaps and bit-field masks as single-channel PNGs."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from artifactnet.data.geometry import resample
from artifactnet.data.images import decode
from artifactnet.files import atomic_path
from artifactnet.types import ArtifactNetError, Float32Array, UInt8Array

ASPECT_TOLERANCE = 0.01  # relative; less is not another shape
_SIGMA = 0.02  # of the image's short side
_REGION_SIGMA = 0.25  # at most this share of a region's short side, or small regions would vanish


def read_gray(data: bytes | str | Path, name: str) -> UInt8Array:
    """Decode a map made elsewhere, whatever its file format.

    Args:
        data: file content, or a path.
        name: what to call it in error messages.

    Returns:
        (H, W) uint8.

    Raises:
        ArtifactNetError: it cannot be decoded, is coloured, or is transparent.
    """
    pixels = decode(data, name)
    with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as file:
        if file.has_transparency_data:  # decoding has composited it on white, which means artifact
            raise ArtifactNetError(f"{name}: a map must not be transparent; save it as plain gray")
    gray = pixels[..., 0]
    if not (pixels == gray[..., None]).all():
        raise ArtifactNetError(f"{name}: a map must be gray, not coloured; save it as plain gray")
    return np.ascontiguousarray(gray)


def read_stored(path: str | Path, name: str) -> UInt8Array:
    """Decode a map that a manifest names: a file with one channel of 8 bits, taken as it is.

    Returns:
        (H, W) uint8.

    Raises:
        ArtifactNetError: it cannot be decoded, or has another pixel type.
    """
    gray = read_gray(path, name)
    with Image.open(path) as file:
        if file.mode != "L":  # a palette or 16 bits would change the values, and so the bits
            raise ArtifactNetError(
                f"{name}: its pixels are of type {file.mode}; save it with one channel of 8 bits"
            )
    return gray


def store(path: Path, values: UInt8Array) -> None:
    """Write a map as PNG, atomically; a file that already holds the same is left alone."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    content = buffer.getvalue()
    if path.is_file() and path.read_bytes() == content:
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def same_aspect(heatmap: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether a heatmap has its image's aspect ratio.

    Args:
        heatmap: height and width, pixels.
        image: likewise.

    Returns:
        True where the ratios differ by at most `ASPECT_TOLERANCE`, or one side of the heatmap by
        at most half a pixel from what the other asks for: a small map cannot have the ratio of
        its image.
    """
    (height, width), (image_height, image_width) = heatmap, image
    off = abs(height * image_width - width * image_height)
    if off <= ASPECT_TOLERANCE * width * image_height:
        return True
    return 2 * off <= max(image_height, image_width)


def heatmap_at(gray: UInt8Array, size: tuple[int, int], name: str) -> Float32Array:
    """A stored heatmap at its image's size.

    Args:
        gray: (h, w) uint8, 255 = artifact.
        size: (H, W) of the image.
        name: what to call the heatmap in error messages.

    Returns:
        (H, W) float32 in [0, 1]: resized linearly where it grows, averaged where it shrinks.

    Raises:
        ArtifactNetError: its aspect ratio is not the image's, see `same_aspect`.
    """
    height, width = gray.shape
    if not same_aspect((height, width), size):
        raise ArtifactNetError(
            f"{name}: it is {width}x{height}, its image {size[1]}x{size[0]}: another aspect ratio, "
            "so its places are unknown; make the heatmap in the image's shape"
        )
    scaled = resample(gray.astype(np.float32) / np.float32(255), size)
    return np.asarray(scaled, np.float32).clip(0.0, 1.0)


def soften(mask: UInt8Array) -> Float32Array:
    """Heatmap of a mask: each region blurred, since people do not mark artifacts to the pixel.

    The Gaussian's deviation is 2 % of the image's short side, but at most a quarter of the
    region's own short side.

    Args:
        mask: (H, W); regions are the 8-connected sets of pixels that are not 0.

    Returns:
        (H, W) float32 in [0, 1]; where blurred regions meet, the larger value.
    """
    result = np.zeros(mask.shape, np.float32)
    regions = np.ascontiguousarray(mask > 0).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(regions, connectivity=8)
    for index in range(1, count):
        left, top, width, height = (int(value) for value in boxes[index][:4])
        sigma = min(_SIGMA * min(mask.shape), _REGION_SIGMA * min(width, height))
        reach = int(np.ceil(4 * sigma)) + 1  # OpenCV's kernel for float images ends there
        rows = slice(max(0, top - reach), top + height + reach)
        columns = slice(max(0, left - reach), left + width + reach)
        region = (labels[rows, columns] == index).astype(np.float32)
        blurred = cv2.GaussianBlur(region, (0, 0), sigma)
        result[rows, columns] = np.maximum(result[rows, columns], blurred)
    return result.clip(0.0, 1.0)
