"""Maps in files: reading, writing and fitting them to images; folders of a teacher's heatmaps."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

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
_PREDICTED = "heatmaps"  # the folder of `predict` for them


class HeatmapFolder:
    """The heatmaps (``.png``, ``.npy``, searched deeply) of a folder, and which image each is of.

    A heatmap is called like its image's file: ``7.png`` or ``7.jpg.png`` for ``7.jpg``. Where
    several are, the one whose folders agree best with the image's counts, and then the one with the
    image's suffix: ``fake/sd/7.npy`` for ``data/fake/sd/7.jpg``. An image without a file of its own
    (in a shard, or made on the fly) is called ``GENERATOR/UID``, and so may any other be.

    In what ``predict`` wrote (its folder, or ``heatmaps`` in it), ``predictions.jsonl`` says which
    heatmap is of which image, and the rules above hold for images that it does not name. ``hash``
    is over names, sizes and modification times: 32 hexadecimal digits.

    Args:
        root: the folder.
        key: of the config that named it, for errors.

    Raises:
        ArtifactNetError: no such folder, no heatmap in it, or a damaged ``predictions.jsonl``.
    """

    def __init__(self, root: Path, key: str = "distill.teacher") -> None:
        self._name = f"{key}={root}"
        if not root.is_dir():
            raise ArtifactNetError(f"{self._name}: no such folder")
        listing = _find_listing(root)
        if listing is not None and listing.parent == root.resolve():
            if not (root / _PREDICTED).is_dir():
                raise ArtifactNetError(
                    f"{self._name}: its predictions have no heatmaps; predict again "
                    "without --no-heatmaps, with a model that has a heatmap"
                )
            root = root / _PREDICTED
        self.root = root
        self._by_stem: dict[str, list[PurePath]] = defaultdict(list)
        self._listed: dict[str, list[tuple[PurePath, PurePath]]] = defaultdict(list)
        hasher = blake2b(digest_size=16)
        for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS):
            relative = path.relative_to(root)
            self._by_stem[path.stem].append(relative)
            _hash_state(hasher, path, relative)
        if not self._by_stem:
            raise ArtifactNetError(
                f"{self._name}: no heatmap in it (.png of one channel, or .npy), and it "
                "is not the folder of a run"
            )
        if listing is not None:
            self._read_listing(listing)
            _hash_state(hasher, listing, listing.name)
        self.hash = hasher.hexdigest()

    def _read_listing(self, listing: Path) -> None:
        """Note which image each heatmap is of, as far as both are named and the heatmap exists."""
        home = self.root.resolve()
        known = {path for paths in self._by_stem.values() for path in paths}
        # what follows the last line's end was not finished when the process was killed
        for number, line in enumerate(listing.read_bytes().split(b"\n")[:-1], 1):
            try:
                entry = json.loads(line)
                image, heatmap = entry["path"], entry["heatmap"]
                if heatmap is None:
                    continue
                image, file = PurePath(image), listing.parent / heatmap
            except (ValueError, TypeError, KeyError) as error:
                raise ArtifactNetError(
                    f"{listing}, line {number}: no prediction ({error}); predict again, or "
                    "remove this file: heatmaps are then found by their names"
                ) from error
            if file.is_relative_to(home) and file.relative_to(home) in known:
                self._listed[image.name].append((image, file.relative_to(home)))

    def __len__(self) -> int:
        return sum(map(len, self._by_stem.values()))

    def has(self, record: Record) -> bool:
        """Whether there is a heatmap of an image; an error if two fit equally well."""
        return self._find(record) is not None

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
                f"{self._name}: no heatmap for {len(missing)} images: "
                f"{'; '.join(missing[:_NAMED])}{more}; a heatmap is called like its image: "
                "7.png or 7.jpg.png for 7.jpg"
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
        image = PurePath(record.location if record.path is None else record.path)
        listed = [
            ((_same_file(one, image), _common_tail(one, image)), heatmap)
            for one, heatmap in self._listed.get(image.name, ())
        ]
        if listed:
            return self._best(record, listed)
        own_uid = PurePath(record.generator, record.uid)
        names: list[tuple[PurePath, tuple[str, ...]]]
        names = [(own_uid, (own_uid.name,)), (image, (image.name,))]
        if record.path is not None:
            names = [(image, (image.stem, image.name)), (own_uid, (own_uid.name,))]
        for name, stems in names:
            found = [
                ((_common_tail(path.parent, name.parent), how), path)
                for how, stem in enumerate(dict.fromkeys(stems))
                for path in self._by_stem.get(stem, ())
            ]
            if found:
                return self._best(record, found)
        return None

    def _best(self, record: Record, found: Sequence[tuple[tuple[int, int], PurePath]]) -> PurePath:
        """The heatmap with the highest number; an error if two share it."""
        highest = max(score for score, _ in found)
        best = sorted({path for score, path in found if score == highest})
        if len(best) > 1:
            raise ArtifactNetError(
                f"{record.location}: {self.root / best[0]} and {self.root / best[1]} fit it "
                "equally well; lay the heatmaps out in folders as the images are"
            )
        return best[0]


def _find_listing(root: Path) -> Path | None:
    """The file in which ``predict`` says what it wrote into ``root``, or into a folder above."""
    root = root.resolve()
    for folder in (root, *root.parents):
        if folder == root or root.is_relative_to(folder / _PREDICTED):
            # the second one is of a run that was interrupted
            for name in ("predictions.jsonl", "predictions.partial.jsonl"):
                if (folder / name).is_file():
                    return folder / name
    return None


def _hash_state(hasher: Any, path: Path, name: PurePath | str) -> None:
    state = path.stat()
    hasher.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())


def _same_file(one: PurePath, other: PurePath) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def read_heatmap(path: Path) -> Float32Array:
    """Read an 8-bit gray PNG, or a .npy of uint8 or of floats in [0, 1], as (h, w) in [0, 1].

    Raises:
        ArtifactNetError: unreadable, of another kind, or with values out of range.
    """
    try:
        if path.suffix.lower() == ".npy":
            values = _read_npy(path)
        else:
            mode = pixel_type(path, str(path))
            if mode not in _ONE_CHANNEL:
                raise ArtifactNetError(
                    f"{path}: pixels of mode {mode}; a heatmap has one 8-bit channel (L)"
                )
            values = read_gray(path, str(path))
    except OSError as error:
        raise ArtifactNetError(f"{path}: cannot be read as a heatmap ({error})") from error
    if values.ndim != 2 or values.size == 0:
        raise ArtifactNetError(f"{path}: shape {values.shape}; a heatmap is (height, width)")
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    if values.dtype.kind != "f":
        raise ArtifactNetError(f"{path}: {values.dtype} values; use uint8, or floats in 0..1")
    if not (values.min() >= 0 and values.max() <= 1):  # also false where one is NaN
        raise ArtifactNetError(f"{path}: values outside 0..1, or NaN; 1 is an artifact, 0 is none")
    return values.astype(np.float32)


def _read_npy(path: Path) -> npt.NDArray[Any]:
    try:
        # Mapped, so that a size that the file does not have takes no memory.
        with np.errstate(over="raise"):  # of a size beyond 64 bits
            values = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy reads the header as Python code, which raises many types
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ArtifactNetError(f"{path}: cannot be read as a heatmap ({reason})") from error
    if not isinstance(values, np.ndarray):
        raise ArtifactNetError(f"{path}: an archive of arrays; a heatmap is one array (.npy)")
    return values


def _common_tail(one: PurePath, other: PurePath) -> int:
    """How many names at the end of two paths are equal."""
    pairs = zip(reversed(one.parts), reversed(other.parts), strict=False)
    equal = [a == b for a, b in pairs]
    return len(equal) if all(equal) else equal.index(False)
