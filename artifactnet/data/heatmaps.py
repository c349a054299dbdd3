"""Maps in files: reading, writing and fitting them to images; folders of a teacher's heatmaps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np

from artifactnet.data.depth import to_8_bit
from artifactnet.data.geometry import resample
from artifactnet.data.images import decode_levels, encode_png, pixel_type
from artifactnet.files import atomic_path
from artifactnet.types import ArtifactNetError, Float32Array, Record, UInt8Array

_ONE_CHANNEL = ("L", "LA")  # decoding has made sure that the alpha is opaque
ASPECT_TOLERANCE = 0.01  # relative; less is not another shape
_SIGMA = 0.02  # of the image's short side
_REGION_SIGMA = 0.25  # at most this share of a region's short side, or small regions would vanish


def read_gray(data: bytes | str | Path, name: str) -> UInt8Array:
    """Decode a map made elsewhere, of any image format, to (H, W) uint8; ``name`` is for errors.

    16-bit maps are divided by 257 and floats up to 1 multiplied by 255, whatever their largest
    value: a weak map is no dark image. Alpha that is opaque everywhere is ignored.

    Raises:
        ArtifactNetError: it cannot be decoded, is coloured or transparent, or has values of another
            range.
    """
    values, _ = decode_levels(data, name)
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return to_8_bit(values, name, 65535)
    high = values.max()
    if values.dtype.kind == "f" and high <= 1:
        return to_8_bit(values, name, 1)
    if values.dtype.kind == "i" and high <= 255:
        return to_8_bit(values, name, 255)
    raise ArtifactNetError(
        f"{name}: its values go up to {high:g}, a range that maps do not have; save it with one "
        "channel of 8 bits"
    )


def read_stored_map(path: str | Path, name: str) -> UInt8Array:
    """Decode a map that a manifest names, one channel of 8 bits, to (H, W) uint8 as it is.

    Raises:
        ArtifactNetError: it cannot be decoded, or has another pixel type.
    """
    gray = read_gray(path, name)
    mode = pixel_type(path, name)
    if mode not in _ONE_CHANNEL:  # a palette or 16 bits would change the values, and so the bits
        raise ArtifactNetError(
            f"{name}: its pixels are of type {mode}; save it with one channel of 8 bits"
        )
    return gray


def write_map(path: Path, values: UInt8Array) -> None:
    """Write a map as PNG, atomically; a file that already holds the same is left alone."""
    content = encode_png(values)
    if path.is_file() and path.read_bytes() == content:
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def same_aspect(heatmap: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether a heatmap has its image's aspect ratio; both are (height, width) in pixels.

    The ratios may differ by `ASPECT_TOLERANCE`, or one side of the heatmap by half a pixel from
    what the other asks for: a small map cannot have the ratio of its image.
    """
    (height, width), (image_height, image_width) = heatmap, image
    off = abs(height * image_width - width * image_height)
    if off <= ASPECT_TOLERANCE * width * image_height:
        return True
    return 2 * off <= max(image_height, image_width)


def resize_heatmap(gray: UInt8Array, size: tuple[int, int], name: str) -> Float32Array:
    """A stored heatmap, (h, w) uint8 with 255 = artifact, at its image's ``size``.

    Returns:
        (H, W) float32 in [0, 1]: resized linearly where it grows, averaged where it shrinks.

    Raises:
        ArtifactNetError: its aspect ratio is not the image's, see `same_aspect`.
    """
    _check_aspect(gray, size, name)
    scaled = resample(gray.astype(np.float32) / np.float32(255), size)
    return np.asarray(scaled, np.float32).clip(0.0, 1.0)


def _check_aspect(heatmap: Any, size: tuple[int, int], name: str, image: str = "") -> None:
    height, width = heatmap.shape
    if not same_aspect((height, width), size):
        raise ArtifactNetError(
            f"{name}: it is {width}x{height}, its image {image}{size[1]}x{size[0]}: another aspect "
            "ratio, so its places are unknown; make it of the whole image, without padding or crop"
        )


def soften_mask(mask: UInt8Array) -> Float32Array:
    """Heatmap of a mask: each region blurred, since people do not mark artifacts to the pixel.

    The Gaussian's deviation is 2 % of the image's short side, but at most a quarter of the short
    side of the region (an 8-connected set of non-zero pixels). Where blurred regions meet, the
    larger value counts.

    Returns:
        (H, W) float32 in [0, 1].
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


EXTENSIONS = (".png", ".npy")
_NAMED = 3  # examples in an error


class HeatmapFolder:
    """The heatmaps (``.png``, ``.npy``, searched deeply) of a folder, and which image each is of.

    A heatmap has the stem of its image's file. Where several do, the one whose folders agree best
    with the image's counts: ``fake/sd/7.npy`` for ``data/fake/sd/7.jpg``. An image without a file
    of its own (in a shard, or made on the fly) is called ``GENERATOR/UID``, and so may any other
    be. ``hash`` is over names, sizes and modification times: 32 hexadecimal digits.

    Raises:
        ArtifactNetError: no such folder, or no heatmap in it.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ArtifactNetError(f"distill.teacher={root}: no such folder")
        self.root = root
        self._by_stem: dict[str, list[PurePath]] = defaultdict(list)
        hasher = blake2b(digest_size=16)
        for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS):
            relative = path.relative_to(root)
            self._by_stem[path.stem].append(relative)
            state = path.stat()
            hasher.update(f"{relative}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
        if not self._by_stem:
            raise ArtifactNetError(
                f"distill.teacher={root}: no heatmap in it (.png of one channel, or .npy), and it "
                "is not the folder of a run"
            )
        self.hash = hasher.hexdigest()

    def __len__(self) -> int:
        return sum(map(len, self._by_stem.values()))

    def check(self, records: Iterable[Record]) -> None:
        """Refuse images that have no heatmap, and heatmaps that fit two images.

        Raises:
            ArtifactNetError: names the first few, and how many there are.
        """
        missing: list[str] = []
        owner: dict[PurePath, tuple[str, str]] = {}
        for record in records:
            heatmap = self._find(record)
            image = record.location, record.generator  # twins made on the fly share a location
            if heatmap is None:
                missing.append(record.location)
            elif owner.setdefault(heatmap, image) != image:
                one, other = (
                    f"{where} ({generator})" for where, generator in (owner[heatmap], image)
                )
                raise ArtifactNetError(
                    f"{self.root / heatmap}: fits {one} as well as {other}; either one of them is "
                    "missing, or lay them out in folders as the images are: real/NAME.png, "
                    "fake/NAME.png"
                )
        if missing:
            more = "; ..." if len(missing) > _NAMED else ""
            raise ArtifactNetError(
                f"distill.teacher={self.root}: no heatmap for {len(missing)} images: "
                f"{'; '.join(missing[:_NAMED])}{more}; a heatmap is called like its image"
            )

    def read(self, record: Record, size: tuple[int, int]) -> Float32Array:
        """The stored heatmap, (h, w) in [0, 1], of an image of ``size`` (height, width).

        Raises:
            ArtifactNetError: there is none, it cannot be read, or its aspect ratio is not the
                image's.
        """
        relative = self._find(record)
        if relative is None:
            raise ArtifactNetError(f"{record.location}: no heatmap of this name in {self.root}")
        path = self.root / relative
        heatmap = read_heatmap(path)
        _check_aspect(heatmap, size, str(path), f"{record.location}, ")
        return heatmap

    def _find(self, record: Record) -> PurePath | None:
        """The one heatmap that fits best; an error if two fit equally well."""
        names = [PurePath(record.generator, record.uid)]
        if record.path is not None:
            names.insert(0, PurePath(record.path).with_suffix(""))
        for name in names:
            paths = self._by_stem.get(name.name)
            if not paths:
                continue
            common = [_common_tail(path.with_suffix(""), name) for path in paths]
            best = [p for p, count in zip(paths, common, strict=True) if count == max(common)]
            if len(best) > 1:
                raise ArtifactNetError(
                    f"{record.location}: {self.root / best[0]} and {self.root / best[1]} fit it "
                    "equally well; lay the heatmaps out in folders as the images are"
                )
            return best[0]
        return None


def read_heatmap(path: Path) -> Float32Array:
    """Read an 8-bit gray PNG, or a .npy of uint8 or of floats in [0, 1], as (h, w) in [0, 1].

    Raises:
        ArtifactNetError: unreadable, of another kind, or with values out of range.
    """
    try:
        if path.suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            mode = pixel_type(path, str(path))
            if mode not in _ONE_CHANNEL:
                raise ArtifactNetError(
                    f"{path}: pixels of mode {mode}; a heatmap has one 8-bit channel (L)"
                )
            values = read_gray(path, str(path))
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactNetError(f"{path}: cannot be read as a heatmap ({reason})") from error
    if values.ndim != 2 or values.size == 0:
        raise ArtifactNetError(f"{path}: shape {values.shape}; a heatmap is (height, width)")
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    if values.dtype.kind != "f":
        raise ArtifactNetError(f"{path}: {values.dtype} values; use uint8, or floats in 0..1")
    if not (values.min() >= 0 and values.max() <= 1):  # also false where one is NaN
        raise ArtifactNetError(f"{path}: values outside 0..1, or NaN; 1 is an artifact, 0 is none")
    return values.astype(np.float32)


def _common_tail(one: PurePath, other: PurePath) -> int:
    """How many names at the end of two paths are equal."""
    pairs = zip(reversed(one.parts), reversed(other.parts), strict=False)
    equal = [a == b for a, b in pairs]
    return len(equal) if all(equal) else equal.index(False)
