"""Reading any image file into one form, and encoding pixels: the only user of Pillow's decoders."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from artifactnet.data.containers import png_significant_bits, strip_metadata
from artifactnet.data.depth import significant_white, to_8_bit
from artifactnet.data.notices import notice
from artifactnet.types import ArtifactNetError, UInt8Array

MAX_PIXELS = 150_000_000  # below the 179 Mpx at which Pillow itself refuses, so ours speaks first
JPEG_SIDE = 65500  # longest side the format's encoders accept, pixels
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")

_ORIENTATION_TAG = 0x0112
_TILE_WIDTH_TAG = 322
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_Result = TypeVar("_Result")
Content = bytes | str | Path
# Formats that hold pixels; Pillow's others are documents or programs, or start one (EPS).
_FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "TIFF", "GIF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000"),
    *("HEIF", "JXL", "ICO", "ICNS", "TGA", "PCX", "SGI", "SUN", "PSD", "DDS", "QOI"),
)
_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000", "HEIF", "JXL")
_LOSSY_TINT = 24  # levels by which lossy compression parts the channels of a gray pixel
_MAX_REWRITTEN = 1 << 30  # bytes of a file whose metadata is cut out in memory
_DEEP_RAW_MODES = ("RGB;16B", "LA;16B", "RGBA;16B")  # of which Pillow keeps the high bytes
_DARK = 64  # high bytes below a quarter of white: the range may be another one
_filters_lock = threading.Lock()
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


def decode_image(data: Content | Image.Image, name: str, levels: int | None = None) -> UInt8Array:
    """Decode a file's content, a path or a Pillow image (left unchanged) to 8-bit RGB.

    EXIF rotation is applied, transparency is composited on white, and CMYK, palette, gray and 1-bit
    images are converted. Pixels of more than 8 bits are scaled, see `artifactnet.data.depth`. Of an
    animation the first frame is taken. Colour profiles are not applied: values stay as stored,
    since a detector looks for traces that a colour conversion would overwrite. Metadata that cannot
    be read is ignored, with a warning.

    Args:
        data: the image.
        name: of the image, for errors.
        levels: the value of white in images of more than 8 bits; None: what the file declares, or
            what is evident.

    Returns:
        (H, W, 3) uint8 array, contiguous and writable.

    Raises:
        ArtifactNetError: the image is missing, truncated, of an unknown format, of a pixel type
            without a known range, empty, or larger than `MAX_PIXELS`.
    """
    return _read(data, name, lambda image, content: _to_rgb(image, name, levels, content))


def decode_levels(data: Content, name: str) -> tuple[npt.NDArray[Any], bool]:
    """Decode a gray image to its stored values, for maps whose values mean something.

    EXIF rotation is applied. Alpha that is opaque everywhere is dropped. A palette of grays gives
    gray values; one of colours that starts with black, as class masks have, gives its indices.

    Returns:
        (H, W) array of uint8, of integers or of floats, and whether its format is a lossy one,
        which blurs values.

    Raises:
        ArtifactNetError: see `decode_image`; or the image is coloured or transparent.
    """
    return _read(data, name, lambda image, content: _to_levels(image, name, content))


def probe_image(data: Content, name: str | None = None) -> tuple[str, int, int]:
    """Format (Pillow's name, e.g. ``"JPEG"``), width and height as the header states them.

    The pixels are not decoded and EXIF rotation is not applied.

    Raises:
        ArtifactNetError: the header cannot be read, or announces more than `MAX_PIXELS`.
    """
    return _read(data, name, lambda image, _: (str(image.format), image.width, image.height))


def is_tiled(data: Content, name: str | None = None) -> bool:
    """Whether a TIFF file says that it has tiles. Each is decoded whole, of whatever size it is.

    Raises:
        ArtifactNetError: as `probe_image`.
    """
    return _read(data, name, lambda image, _: _TILE_WIDTH_TAG in getattr(image, "tag_v2", ()))


def pixel_type(data: Content, name: str | None = None) -> str:
    """Pillow's mode of an image (``L``, ``RGB``, ``I;16``, ...), by its header.

    Raises:
        ArtifactNetError: as `probe_image`.
    """
    return _read(data, name, lambda image, _: image.mode)


def gray_thumbnail(data: Content, side: int, name: str | None = None) -> UInt8Array:
    """Square thumbnail of an image as it is shown, (side, side) uint8 gray, averaged by area.

    Of a large JPEG file a small version is decoded, which takes a fraction of the time.

    Raises:
        ArtifactNetError: as `decode_image`.
    """
    name = name or ("image bytes" if isinstance(data, bytes) else str(data))

    def shrink(image: Image.Image, content: Content | None) -> UInt8Array:
        image.draft("L", (8 * side, 8 * side))
        return _to_rgb(image, name, None, content)

    pixels = _read(data, name, shrink)
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def shown_size(data: Content, name: str | None = None) -> tuple[int, int, bool]:
    """Height and width of what `decode_image` gives, and whether EXIF turns or mirrors it.

    Raises:
        ArtifactNetError: as `probe_image`.
    """

    def size(image: Image.Image, _: object) -> tuple[int, int, bool]:
        orientation = _orientation(image, name or "image bytes")
        width, height = image.size
        if image.format == "TIFF":  # Pillow has turned its size already, or not, by version
            tags: Any = image.tag_v2  # type: ignore[attr-defined]
            width, height = tags[256], tags[257]
        if orientation >= _SIDES_SWAPPED:
            width, height = height, width
        return height, width, orientation != 1

    return _read(data, name, size)


def jpeg_quality(data: Content, name: str | None = None) -> int | None:
    """Estimate the libjpeg quality (1..100) from the quantisation table; None if not a JPEG.

    It is the quality whose scaled standard luminance table is nearest in L1: exact for files of
    libjpeg and its descendants, approximate for others. Raises as `probe_image`.
    """
    tables = _read(data, name, lambda image, _: getattr(image, "quantization", None))
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


def encode_webp(image: UInt8Array, quality: int) -> bytes:
    """Encode an (H, W, 3) uint8 RGB image as lossy WebP of a quality in 0..100."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=quality)
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


def _read(
    data: Content | Image.Image,
    name: str | None,
    use: Callable[[Image.Image, Content | None], _Result],
) -> _Result:
    """Open an image, check its size and return ``use(image, content)``.

    Where that fails, the file is tried once more without its metadata, which is no reason to refuse
    sound pixels.
    """
    if isinstance(data, Image.Image):
        return _use(_guard(data, name or "image"), None, use, name or "image")
    name = name or ("image bytes" if isinstance(data, bytes) else str(data))
    try:
        return _open_and_use(data, name, use)
    except _Unreadable as problem:
        bare = _without_metadata(data)
        if bare is not None:
            try:
                result = _open_and_use(bare, name, use)
            except _Unreadable:
                pass  # the pixels are damaged too, and the first reason says so
            else:
                _warn_of_metadata(name, problem.reason)
                return result
        raise ArtifactNetError(str(problem)) from problem.__cause__


class _Unreadable(Exception):
    """A decoder gave up: the message for the user, and the decoder's own reason."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def _open_and_use(
    data: Content, name: str, use: Callable[[Image.Image, Content | None], _Result]
) -> _Result:
    try:
        image = _open(io.BytesIO(data) if isinstance(data, bytes) else data)
    except FileNotFoundError:
        raise ArtifactNetError(f"{name}: no such file") from None
    except Image.DecompressionBombError:
        raise ArtifactNetError(
            f"{name}: more than {MAX_PIXELS / 1e6:.0f} megapixels (a decompression bomb?); "
            "shrink the image first"
        ) from None
    except Image.UnidentifiedImageError as error:
        message = f"{name}: not an image that Pillow can read"
        raise _Unreadable(message, "its header cannot be read") from error
    except Exception as error:  # decoders raise many types on damaged headers
        reason = _reason(error)
        raise _Unreadable(f"{name}: cannot be opened as an image ({reason})", reason) from error
    with image:
        return _use(_guard(image, name), data, use, name)


def _use(
    image: Image.Image,
    content: Content | None,
    use: Callable[[Image.Image, Content | None], _Result],
    name: str,
) -> _Result:
    try:
        return use(image, content)
    except ArtifactNetError:
        raise
    except MemoryError:
        raise ArtifactNetError(f"{name}: not enough memory to decode it") from None
    except Exception as error:  # decoders raise many types on damaged data
        reason = _reason(error)
        message = f"{name}: truncated or damaged image ({reason})"
        if content is None:
            raise ArtifactNetError(message) from error
        raise _Unreadable(message, reason) from error


def _open(file: Any) -> Image.Image:
    Image.preinit()  # the usual formats; loading all takes longer than decoding a photograph
    try:
        return _identify(file)
    except Image.UnidentifiedImageError:
        Image.init()
        return _identify(file)


def _identify(file: Any) -> Image.Image:
    formats = [kind for kind in _FORMATS if kind in Image.OPEN]  # registered plug-ins count too
    with _quiet_pillow():
        return Image.open(file, formats=formats)


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Without Pillow's warnings of metadata that it leaves out, and of images above 89 megapixels.

    `_guard` is the limit of size that counts, and such metadata is not used. Warning filters belong
    to the process, so one thread at a time is in here.
    """
    with _filters_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _load(image: Image.Image) -> None:
    if image.format == "TIFF":  # of which it reads EXIF after the pixels
        with _quiet_pillow():
            image.load()
    else:
        image.load()


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]


def _without_metadata(data: Content) -> bytes | None:
    """The file without what is not needed for its pixels; None where that changes nothing."""
    if not isinstance(data, bytes):
        path = Path(data)
        try:
            if not path.is_file() or path.stat().st_size > _MAX_REWRITTEN:
                return None
            data = path.read_bytes()
        except OSError:
            return None  # the error of the first attempt is reported
    return strip_metadata(data)


def _warn_of_metadata(name: str, reason: str) -> None:
    notice(
        "images have metadata that cannot be read, which was ignored",
        f"{name}: its metadata cannot be read and is ignored ({reason})",
    )


def _orientation(image: Image.Image, name: str) -> int:
    """EXIF orientation, 1..8; 1 where there is none, or none that can be read."""
    try:
        with _quiet_pillow():
            value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception as error:  # of whatever the bytes of a damaged EXIF block lead to
        _warn_of_metadata(name, _reason(error))
        return 1
    return value if isinstance(value, int) and value in _TRANSPOSE else 1


def _turned(image: Image.Image, name: str) -> Image.Image:
    """The loaded image as it is shown."""
    # After load(): Pillow rotates TIFF files itself and then drops the tag.
    method = _TRANSPOSE.get(_orientation(image, name))
    return image if method is None else image.transpose(method)


def _to_rgb(
    image: Image.Image, name: str, levels: int | None, content: Content | None
) -> UInt8Array:
    deep = _is_deep_colour(image)
    turn = _TRANSPOSE.get(_orientation(image, name)) if deep else None
    _load(image)
    if deep and content is not None:
        colours = 1 if image.mode == "LA" else 3
        brightest = max(high for _, high in _extrema(image)[:colours])
        if levels is not None or brightest < _DARK:
            image = Image.fromarray(_deep_to_8_bit(image, name, levels, content))
            image = image if turn is None else image.transpose(turn)
            return _flatten(image)
    image = _turned(image, name)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = _numbers(image)
        white = _declared_white(image, content, values)
        return np.repeat(to_8_bit(values, name, levels, white)[..., None], 3, axis=2)
    return _flatten(image)


def _deep_to_8_bit(
    image: Image.Image, name: str, levels: int | None, content: Content
) -> UInt8Array:
    """Colours by the rule of their depth, and alpha, which may be of another range than they."""
    values = _deep_colour(image, name, content)
    colours, alpha = values[..., :3], values[..., 3:]
    white = levels or _declared_white(image, content, colours)
    pixels = to_8_bit(colours, name, white)
    if not alpha.size:
        return pixels
    whites = (w for w in (255, 1023, 4095, 16383) if w == alpha.max())
    return np.concatenate([pixels, to_8_bit(alpha, name, next(whites, 65535))], axis=2)


def _flatten(image: Image.Image) -> UInt8Array:
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(canvas, image.convert("RGBA"))
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    found: Any = image.getextrema()
    return list(found) if isinstance(found[0], tuple) else [found]


def _numbers(image: Image.Image) -> npt.NDArray[Any]:
    """(H, W) values of a gray image of more than 8 bits."""
    values = np.asarray(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return values.astype(np.uint16)  # native byte order; some versions of Pillow widen PNG
    return values


def _declared_white(
    image: Image.Image, content: Content | None, values: npt.NDArray[Any]
) -> int | None:
    """The value of white that a file of more than 8 bits declares; None if it leaves it open."""
    if image.format in ("PPM", "JPEG2000"):
        return 65535  # Pillow has scaled them from what their header says
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        bits, stated = tags.get(258, (16,)), tags.get(281, ())  # BitsPerSample, MaxSampleValue
        whites = [*(2**b - 1 for b in bits if 8 < b < 16), *stated]
        known, high = (255, 1023, 4095, 16383, 65535), values.max()
        return next((w for w in whites if w in known and w >= high), None)
    if image.format == "PNG" and content is not None and values.max() < 16384:
        data = content if isinstance(content, bytes) else Path(content).read_bytes()
        significant = png_significant_bits(data)
        if significant is not None and 0 < significant <= 16:
            return significant_white(values, significant)
    return None


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether a colour image that is not loaded yet has 16 bits per channel."""
    if image.format == "PNG":
        tiles: Any = getattr(image, "tile", ())
        return any(tile[3] in _DEEP_RAW_MODES for tile in tiles)
    if image.format == "TIFF" and image.mode in ("RGB", "RGBA", "RGBX"):
        return 16 in tuple(getattr(image, "tag_v2", {}).get(258, ()))
    return False


def _deep_colour(image: Image.Image, name: str, content: Content) -> npt.NDArray[Any]:
    """(H, W, 3 or 4) uint16 values as stored, of which Pillow keeps only the high bytes."""
    data = content if isinstance(content, bytes) else Path(content).read_bytes()
    bare = strip_metadata(data) or data
    read = cv2.imdecode(np.frombuffer(bare, np.uint8), cv2.IMREAD_UNCHANGED)
    if read is None or read.dtype != np.uint16 or read.ndim != 3 or read.shape[2] not in (3, 4):
        raise ArtifactNetError(
            f"{name}: its 16-bit colours are dark, and what is white cannot be found out; save it "
            "with 8 bits per channel"
        )
    return cv2.cvtColor(read, cv2.COLOR_BGRA2RGBA if read.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _to_levels(
    image: Image.Image, name: str, content: Content | None
) -> tuple[npt.NDArray[Any], bool]:
    lossy = image.format in _LOSSY
    deep = _is_deep_colour(image)
    turn = _TRANSPOSE.get(_orientation(image, name)) if deep else None
    _load(image)
    if not deep:
        image = _turned(image, name)
    if image.has_transparency_data:
        alpha = image if image.mode in ("RGBA", "LA", "PA") else image.convert("RGBA")
        if _extrema(alpha.getchannel("A"))[0][0] < 255:
            raise ArtifactNetError(f"{name}: a map must not be transparent; save it as plain gray")
    if deep and content is not None:
        values = _gray(_deep_colour(image, name, content), name, 0)
        if turn is not None:
            values = np.asarray(Image.fromarray(values).transpose(turn))
        return values.astype(np.uint16), lossy
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _numbers(image), lossy
    if image.mode in ("P", "PA"):
        return _palette_levels(image, name), lossy
    if image.mode == "LA":
        return np.asarray(image)[..., 0].copy(), lossy
    if image.mode in ("1", "L"):
        return np.array(image.convert("L")), lossy
    pixels = np.asarray(image.convert("RGB"))
    return _gray(pixels, name, _LOSSY_TINT if lossy else 0), lossy


def _gray(pixels: npt.NDArray[Any], name: str, tint: int) -> npt.NDArray[Any]:
    """(H, W) gray values of (H, W, 3 or 4) pixels, whose channels may differ by ``tint``."""
    gray = pixels[..., 1]
    for channel in (pixels[..., 0], pixels[..., 2]):
        if np.abs(channel.astype(np.int32) - gray).max() > tint:
            raise ArtifactNetError(
                f"{name}: a map must be gray, not coloured; save it as plain gray"
            )
    return np.ascontiguousarray(gray)


def _palette_levels(image: Image.Image, name: str) -> UInt8Array:
    indices = np.asarray(image if image.mode == "P" else image.getchannel(0))
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
    row = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    row.putpalette(image.getpalette("RGB") or [])
    colours = np.asarray(row.convert("RGB"))[0]
    if (colours[used] == colours[used, :1]).all():
        return colours[:, 0][indices]
    if colours[used[0]].any():
        raise ArtifactNetError(f"{name}: a map must be gray, not coloured; save it as plain gray")
    return indices.copy()
