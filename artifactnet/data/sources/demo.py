"""The embedded default data: packaged photographs and controlled edits of them, no download.

Every uid is a pair of twins: one crop of a real photograph, and the same crop with one to three
edits. Both are encoded by the same JPEG call at the same quality, so neither size, nor format, nor
compression tells them apart. A sample depends on (demo_seed, split, number) and the ``demo_*`` keys
alone. It is made on first use and then kept as JPEG bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from artifactnet.config import DataConfig
from artifactnet.data.images import decode_image, encode_jpeg
from artifactnet.data.sources.base import Splits
from artifactnet.data.synthetic import edits
from artifactnet.taxonomy import Category
from artifactnet.types import Annotation, ArtifactNetError, Float32Array, Record, Sample, UInt8Array

GENERATOR = "edit"
_SPLITS = ("train", "val", "test")
_SCALE = (0.25, 1.0)  # side of a crop, as a share of the photograph's short side
_SMALLEST_CROP = 96  # pixels of the photograph; smaller crops would be mostly interpolation
_LEAST_CONTRAST = 20.0  # standard deviation of gray; emptier crops are drawn again
_CROP_ATTEMPTS = 20
_QUALITY = (80, 98)  # JPEG, inclusive
_HEATMAP_SIGMA = 0.02  # of the side
_HALF_SEVERE = 4.0  # mean change of an image that is half spoiled, levels
_CACHE_BYTES = 256 * 2**20  # per source and process


@dataclass(frozen=True, slots=True)
class Photo:
    """One packaged photograph: ``file`` inside the folder of the importable ``package``.

    Photographs of one ``scene`` share a split. ``weight`` is how often one is drawn, relative to
    the others of its split. Colour scenes count twice as much as gray ones, since a network should
    not take colour for an artifact.
    """

    scene: str
    split: str
    package: str
    file: str
    weight: float


_SKIMAGE = "skimage"
_PIP_NAMES = {"skimage": "scikit-image", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}
PHOTOS: tuple[Photo, ...] = (
    Photo("astronaut", "train", _SKIMAGE, "data/astronaut.png", 2.0),
    Photo("coffee", "train", _SKIMAGE, "data/coffee.png", 2.0),
    Photo("flower", "train", "sklearn", "datasets/images/flower.jpg", 2.0),
    Photo("motorcycle", "train", _SKIMAGE, "data/motorcycle_left.png", 1.0),
    Photo("motorcycle", "train", _SKIMAGE, "data/motorcycle_right.png", 1.0),
    Photo("retina", "train", _SKIMAGE, "data/retina.jpg", 1.0),
    Photo("tissue", "train", _SKIMAGE, "data/ihc.png", 1.0),
    Photo("galaxies", "train", _SKIMAGE, "data/hubble_deep_field.jpg", 1.0),
    Photo("clock", "train", _SKIMAGE, "data/clock_motion.png", 1.0),
    Photo("brick", "train", _SKIMAGE, "data/brick.png", 0.5),
    Photo("grass", "train", _SKIMAGE, "data/grass.png", 0.5),
    Photo("coins", "train", _SKIMAGE, "data/coins.png", 0.5),
    Photo("page", "train", _SKIMAGE, "data/page.png", 0.5),
    Photo("rocket", "val", _SKIMAGE, "data/rocket.jpg", 2.0),
    Photo("camera", "val", _SKIMAGE, "data/camera.png", 1.0),
    Photo("gravel", "val", _SKIMAGE, "data/gravel.png", 0.5),
    Photo("cat", "test", _SKIMAGE, "data/chelsea.png", 1.0),
    Photo("portrait", "test", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", 1.0),
    Photo("temple", "test", "sklearn", "datasets/images/china.jpg", 1.0),
)


def photos_of_split(split: str) -> tuple[Photo, ...]:
    """The photographs of ``train``, ``val`` or ``test``, in a fixed order."""
    return tuple(photo for photo in PHOTOS if photo.split == split)


def locate_photo(photo: Photo) -> Path:
    """Path of the file inside its installed package.

    Raises:
        ArtifactNetError: package or file is missing; says what to install.
    """
    pip_name = _PIP_NAMES[photo.package]
    spec = find_spec(photo.package)
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactNetError(
            f"demo photograph {photo.file}: the package {photo.package!r} that ships it is not "
            f"installed; run: pip install {pip_name}"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / photo.file
    if not path.is_file():
        raise ArtifactNetError(
            f"demo photograph {path}: missing from the installed {pip_name}; "
            f"run: pip install --force-reinstall {pip_name}"
        )
    return path


@lru_cache(maxsize=len(PHOTOS))
def read_photo(photo: Photo) -> UInt8Array:
    """Decoded photograph, (H, W, 3) uint8 sRGB, read-only and kept for the process.

    Raises:
        ArtifactNetError: the file is missing or cannot be decoded.
    """
    pixels = decode_image(
        locate_photo(photo), f"demo photograph {photo.file} of {_PIP_NAMES[photo.package]}"
    )
    pixels.setflags(write=False)  # shared by every crop of this process
    return pixels


@dataclass(frozen=True, slots=True)
class _Twin:
    """One image of a pair as it is kept: JPEG bytes, and the deflated mask of a fake."""

    jpeg: bytes
    mask: bytes | None
    score: float  # plausibility


class DemoSource:
    """Real crops and their edited twins of one split: ``pairs`` uids, twice as many images.

    Images are square, of ``size`` pixels; ``seed`` is that of the data (not of a training run);
    ``categories`` are the kinds of edits that may occur. No photograph is opened before its turn.
    """

    known_twins = True  # within a split; no photograph is in two

    def __init__(
        self, split: str, pairs: int, size: int, seed: int, categories: Sequence[Category]
    ):
        self._split = split
        self._size = size
        self._seed = seed
        self._photos = photos_of_split(split)
        self._weights = np.array([photo.weight for photo in self._photos])
        self._weights /= self._weights.sum()
        self._kept: dict[int, _Twin] = {}
        self._kept_bytes = 0
        self._plans: list[tuple[Category, ...]] = []
        self.records: list[Record] = []
        for number in range(pairs):
            plan = edits.choose_categories(self._rng(number, "plan"), categories)
            self._plans.append(plan)
            uid = f"demo-{split}-{number:05d}"
            photo = self._photo(self._rng(number, "crop"))
            location = f"{photo.package}/{photo.file}#{uid}"
            bits = sum(category.bit for category in plan)
            self.records += (
                Record(uid, 0, "real", Annotation.CLEAN, location),
                Record(uid, 1, GENERATOR, Annotation.MASK, location, bits),
            )

    def load(self, index: int) -> Sample:
        """See `Source.load`; even is real, odd is the fake twin of the one before."""
        record = self.records[index]
        twin = self._twin(index)
        image = decode_image(twin.jpeg, record.uid)
        if twin.mask is None:
            return Sample(record, image, score=twin.score)
        flat = np.frombuffer(zlib.decompress(twin.mask), np.uint8)
        mask = flat.reshape(self._size, self._size).copy()
        return Sample(record, image, mask, _heatmap(mask), twin.score)

    def encoded(self, index: int) -> bytes:
        """The JPEG file of image ``index``."""
        return self._twin(index).jpeg

    def _rng(self, number: int, purpose: str) -> np.random.Generator:
        """Separate streams, so that a plan can be known without drawing the crop."""
        stream = ("plan", "crop", "edit").index(purpose)
        return np.random.default_rng([self._seed, _SPLITS.index(self._split), number, stream])

    def _photo(self, rng: np.random.Generator) -> Photo:
        return self._photos[int(rng.choice(len(self._photos), p=self._weights))]

    def _twin(self, index: int) -> _Twin:
        if index in self._kept:
            return self._kept[index]
        number, fake = divmod(index, 2)
        rng = self._rng(number, "crop")
        image = _crop(read_photo(self._photo(rng)), rng, self._size)
        quality = int(rng.integers(_QUALITY[0], _QUALITY[1] + 1))
        if fake:
            edited, mask = edits.edit_photo(image, self._rng(number, "edit"), self._plans[number])
            packed = zlib.compress(mask.tobytes(), 1)
            twin = _Twin(encode_jpeg(edited, quality), packed, 1.0 - _severity(image, edited))
        else:
            twin = _Twin(encode_jpeg(image, quality), None, 1.0)
        size = len(twin.jpeg) + len(twin.mask or b"")
        if self._kept_bytes + size <= _CACHE_BYTES:
            self._kept[index] = twin
            self._kept_bytes += size
        return twin


def build_demo_splits(config: DataConfig, seed: int) -> Splits:
    """The embedded data set: ``demo_train``, ``demo_val`` and ``demo_test`` pairs.

    The ``demo_*`` keys, ``limit`` and ``generators`` are used; the ``seed`` is not: the images
    depend on ``demo_seed`` alone, so that runs with different seeds are compared on the same data.
    A split of size 0 is left out.

    Raises:
        ArtifactNetError: a key has an impossible value or a packaged photograph is missing.
    """
    categories = edits.parse_categories(config.demo_categories, "data.demo_categories")
    if config.demo_size < edits.MIN_SIDE:
        raise ArtifactNetError(
            f"data.demo_size is {config.demo_size}; use at least {edits.MIN_SIDE} pixels"
        )
    if config.generators and GENERATOR not in config.generators:
        raise ArtifactNetError(
            f"data.generators {config.generators} leaves no fakes: the demo data has one "
            f"generator, {GENERATOR!r}; remove the key or name it"
        )
    splits: Splits = {}
    for split, pairs in zip(
        _SPLITS, (config.demo_train, config.demo_val, config.demo_test), strict=True
    ):
        if pairs < 0:
            raise ArtifactNetError(f"data.demo_{split} is {pairs}; use 0 or more")
        if config.limit is not None:
            pairs = min(pairs, config.limit)
        if pairs:
            for photo in photos_of_split(split):
                locate_photo(photo)  # report a missing package now, not in the third epoch
            splits[split] = DemoSource(split, pairs, config.demo_size, config.demo_seed, categories)
    if not splits:
        raise ArtifactNetError("the demo data is empty; set data.demo_train, _val or _test above 0")
    return splits


def _crop(photo: UInt8Array, rng: np.random.Generator, size: int) -> UInt8Array:
    """Random square of the photograph at ``size`` pixels, mirrored half of the time.

    Nearly empty squares (a piece of night sky) are drawn again; if all are, the best is taken.
    """
    short = min(photo.shape[:2])
    smallest = min(short, max(_SMALLEST_CROP, round(_SCALE[0] * short)))
    best, best_contrast = photo[:short, :short], -1.0
    for _ in range(_CROP_ATTEMPTS):
        side = int(rng.integers(smallest, round(_SCALE[1] * short) + 1))
        top = int(rng.integers(photo.shape[0] - side + 1))
        left = int(rng.integers(photo.shape[1] - side + 1))
        square = photo[top : top + side, left : left + side]
        contrast = float(square[::4, ::4, 1].std())
        if contrast > best_contrast:
            best, best_contrast = square, contrast
        if contrast >= _LEAST_CONTRAST:
            break
    interpolation = cv2.INTER_AREA if best.shape[0] > size else cv2.INTER_CUBIC
    image = np.asarray(cv2.resize(best, (size, size), interpolation=interpolation), np.uint8)
    return np.ascontiguousarray(image[:, ::-1]) if rng.integers(2) else image


def _severity(image: UInt8Array, edited: UInt8Array) -> float:
    """How much an edit spoiled, in [0, 1): its extent and its strength, saturating.

    d / (d + d0), with d the mean absolute change over all pixels of the image, in levels of 255.
    """
    change = float(np.abs(image.astype(np.int16) - edited.astype(np.int16)).mean())
    return change / (change + _HALF_SEVERE)


def _heatmap(mask: UInt8Array) -> Float32Array:
    """Softened mask, (H, W) float32 in [0, 1]: people do not mark artifacts to the pixel."""
    sigma = _HEATMAP_SIGMA * mask.shape[0]
    soft = cv2.GaussianBlur((mask > 0).astype(np.float32), (0, 0), sigma)
    return np.asarray(soft, np.float32).clip(0.0, 1.0)
