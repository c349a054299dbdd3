"""Reading any image file into one form, and writing JPEG: the only user of Pillow's decoders."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from artifactnet.types import ArtifactNetError, UInt8Array

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
)
MAX_PIXELS = 150_000_000  # below the 179 Mpx at which Pillow itself refuses, so ours speaks first
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDES_SWAPPED = 5  # orientations from here on exchange width and height
# ITU-T T.81, table K.1, row by row: the luminance table that libjpeg scales by quality.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).ravel()


def decode_image(data: bytes | str | Path | Image.Image, name: str) -> UInt8Array:
    """Decode a file's content, a path or a Pillow image (left unchanged) to 8-bit RGB.

    EXIF rotation is applied, transparency is composited on white, 16-bit gray is divided by 257,
    and CMYK, palette, gray and 1-bit images are converted. Of an animation the first frame is
    taken. Colour profiles are not applied: values stay as stored, since a detector looks for traces
    that a colour conversion would overwrite. ``name`` is for error messages.

    Returns:
        (H, W, 3) uint8 array, contiguous and writable.

    Raises:
        ArtifactNetError: the image is missing, truncated, of an unknown format, of a pixel type
            without a known range, empty, or larger than `MAX_PIXELS`.
    """
    if isinstance(data, Image.Image):
        return _to_rgb(_guard(data, name), name)
    with _open(data, name) as image:
        return _to_rgb(image, name)


def probe_image(data: bytes | str | Path, name: str | None = None) -> tuple[str, int, int]:
    """Format (Pillow's name, e.g. ``"JPEG"``), width and height as the header states them.

    The pixels are not decoded and EXIF rotation is not applied.

    Raises:
        ArtifactNetError: the header cannot be read, or announces more than `MAX_PIXELS`.
    """
    with _open(data, name) as image:
        return str(image.format), image.width, image.height


def shown_size(data: bytes | str | Path, name: str | None = None) -> tuple[int, int, bool]:
    """Height and width of what `decode_image` gives, and whether EXIF turns or mirrors it.

    Raises:
        ArtifactNetError: as `probe_image`.
    """
    with _open(data, name) as image:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        width, height = image.size
        if image.format == "TIFF":  # Pillow has turned its size already, or not, by version
            tags: Any = image.tag_v2
            width, height = tags[256], tags[257]
        turned = orientation in _TRANSPOSE
        if turned and orientation >= _SIDES_SWAPPED:
            width, height = height, width
        return height, width, turned


def jpeg_quality(data: bytes | str | Path, name: str | None = None) -> int | None:
    """Estimate the libjpeg quality (1..100) from the quantisation table; None if not a JPEG.

    It is the quality whose scaled standard luminance table is nearest in L1: exact for files of
    libjpeg and its descendants, approximate for others. Raises as `probe_image`.
    """
    with _open(data, name) as image:
        tables = getattr(image, "quantization", None)
        if not tables:
            return None
        table = np.asarray(tables[min(tables)], dtype=np.int64)
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    standard = np.clip((_LUMINANCE * scale[:, None] + 50) // 100, 1, 255)
    return int(quality[np.abs(standard - table).sum(axis=1).argmin()])


def encode_jpeg(image: UInt8Array, quality: int, subsampling: str = "4:2:0") -> bytes:
    """Encode an (H, W, 3) uint8 RGB image as baseline JPEG.

    Raises:
        ValueError: quality is not in 1..100, or subsampling not one of `SUBSAMPLINGS`.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must be in 1..100, got {quality}")
    if subsampling not in SUBSAMPLINGS:
        raise ValueError(f"chroma subsampling must be one of {SUBSAMPLINGS}, got {subsampling!r}")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


def encode_png(image: UInt8Array) -> bytes:
    """Encode an (H, W, 3) or gray (H, W) uint8 image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _guard(image: Image.Image, name: str) -> Image.Image:
    pixels = image.width * image.height
    if pixels == 0:
        raise ArtifactNetError(f"{name}: the image has no pixels")
    if pixels > MAX_PIXELS:
        raise ArtifactNetError(
            f"{name}: {image.width}x{image.height} pixels exceed the limit of "
            f"{MAX_PIXELS / 1e6:.0f} megapixels (a decompression bomb?); shrink the image first"
        )
    return image


def _open(data: bytes | str | Path, name: str | None) -> Image.Image:
    """Image with its header read and its size checked."""
    name = name or ("image bytes" if isinstance(data, bytes) else str(data))
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on; `_guard` is the limit that counts.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data) if isinstance(data, bytes) else data)
    except FileNotFoundError:
        raise ArtifactNetError(f"{name}: no such file") from None
    except Image.DecompressionBombError:
        raise ArtifactNetError(
            f"{name}: more than {MAX_PIXELS / 1e6:.0f} megapixels (a decompression bomb?); "
            "shrink the image first"
        ) from None
    except Image.UnidentifiedImageError:
        raise ArtifactNetError(f"{name}: not an image that Pillow can read") from None
    except Exception as error:  # decoders raise many types on damaged headers
        raise ArtifactNetError(f"{name}: cannot be opened as an image ({error})") from error
    return _guard(image, name)


def _to_rgb(image: Image.Image, name: str) -> UInt8Array:
    try:
        image.load()
        # After load(): Pillow rotates TIFF files itself and then drops the tag.
        method = _TRANSPOSE.get(image.getexif().get(_ORIENTATION_TAG, 1))
        if method is not None:
            image = image.transpose(method)
        if image.mode == "I" or image.mode.startswith("I;16"):
            return _from_16_bit(image, name)
        if image.mode == "F":
            raise ArtifactNetError(f"{name}: float pixels have no known range; save it as 8-bit")
        if image.has_transparency_data:
            canvas = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(canvas, image.convert("RGBA"))
        return np.array(image.convert("RGB"), dtype=np.uint8)
    except (ArtifactNetError, MemoryError):
        raise
    except Exception as error:  # decoders raise many types on damaged data
        raise ArtifactNetError(f"{name}: truncated or damaged image ({error})") from error


def _from_16_bit(image: Image.Image, name: str) -> UInt8Array:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ArtifactNetError(f"{name}: 32-bit pixels have no known range; save it as 8-bit")
    gray = ((values + 128) // 257).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)
