"""The embedded default data: packaged photographs and fakes made from them, no download.

Every uid is a pair of twins: one crop of a real photograph, and the same crop with one to three
controlled edits (generator ``edit``; ``demo_edits``), or of the photograph's version in which a
generative network repainted regions (generator ``migan``). Both are encoded by the same JPEG call
at the same quality, so neither size, nor format, nor compression tells them apart. A sample depends
on (demo_seed, split, number) and the ``demo_*`` keys alone. It is made on first use and then kept
as JPEG bytes.
What was done to it also gives tags of the image, and can be put into words (``demo_texts``).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from artifactnet.config import DataConfig
from artifactnet.data.images import decode_image, encode_jpeg
from artifactnet.data.regions import tags_of_edits
from artifactnet.data.sources.base import Splits
from artifactnet.data.sources.captions import read_captions
from artifactnet.data.synthetic import edits
from artifactnet.taxonomy import UNCATEGORIZED_BIT, Category
from artifactnet.types import Annotation, ArtifactNetError, Float32Array, Record, Sample, UInt8Array
from artifactnet.vlm.text.facts import UNTOUCHED, Facts, find_facts
from artifactnet.vlm.text.writing import write_facts

EDIT, MIGAN = GENERATORS = ("edit", "migan")
_SPLITS = ("train", "val", "test")
_SCALE = (0.25, 1.0)  # side of a crop, as a share of the photograph's short side
_SMALLEST_CROP = 96  # pixels of the photograph; smaller crops would be mostly interpolation
_LEAST_CONTRAST = 20.0  # standard deviation of gray; emptier crops are drawn again
_CROP_ATTEMPTS = 20
_MIGAN_SCALE = (0.5, 1.0)  # smaller crops enlarge away the fine traces of a network
_MASK_SHARE = (0.02, 0.5)  # of a crop that shows a repainted region
_QUALITY = (80, 98)  # JPEG, inclusive
_HEATMAP_SIGMA = 0.02  # of the side
_HALF_SEVERE = 4.0  # mean change of an image that is half spoiled, levels
_CACHE_BYTES = 256 * 2**20  # per source and process


@dataclass(frozen=True, slots=True)
class Photo:
    """One packaged photograph: ``file`` inside the folder of the importable ``package``.

    Photographs of one ``scene`` share a split. ``weight`` is how often one is drawn, relative to
    the others of its split. Colour scenes count twice as much as gray ones, since a network should
    not take colour for an artifact. ``repainted`` and ``mask`` are the files of the version with
    regions repainted by MI-GAN, where there is one.
    """

    scene: str
    split: str
    package: str
    file: str
    weight: float
    repainted: str = ""
    mask: str = ""


_OURS = "artifactnet"
PHOTOGRAPHS = Path(__file__).parents[2] / "photographs"  # LICENCES.csv names their authors
_SKIMAGE = "skimage"
_PIP_NAMES = {"skimage": "scikit-image", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}
CLASSIC: tuple[Photo, ...] = (
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


@cache
def packaged_photos() -> tuple[Photo, ...]:
    """The free photographs of the package, each with its repainted version, by split and name.

    Raises:
        ArtifactNetError: the package was built without those of a split.
    """
    photos = []
    for split in _SPLITS:
        for path in sorted((PHOTOGRAPHS / split / "real").glob("*.jpg")):
            places = [f"photographs/{split}/{kind}" for kind in ("real", "fake", "masks")]
            real, fake = (f"{place}/{path.name}" for place in places[:2])
            mask = f"{places[2]}/{path.stem}.png"
            photos.append(Photo(path.stem, split, _OURS, real, 1.0, fake, mask))
    if {photo.split for photo in photos} != set(_SPLITS):
        raise ArtifactNetError(
            f"{PHOTOGRAPHS}: this installation lacks the photographs of the demo data; reinstall "
            "artifactnet, or use data.demo_photos=classic (those of scikit-image)"
        )
    return tuple(photos)


def photos_of_split(split: str, which: str = "all") -> tuple[Photo, ...]:
    """The photographs of ``train``, ``val`` or ``test``, in a fixed order.

    Args:
        split: name of the split.
        which: ``all``, or ``classic`` for those of scikit-image, scikit-learn and matplotlib alone.
    """
    photos = CLASSIC if which == "classic" else (*CLASSIC, *packaged_photos())
    return tuple(photo for photo in photos if photo.split == split)


def _locate(photo: Photo, file: str) -> Path:
    """Path of a file of a photograph inside its installed package."""
    pip_name = _PIP_NAMES.get(photo.package, photo.package)
    spec = find_spec(photo.package)
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactNetError(
            f"demo photograph {file}: the package {photo.package!r} that ships it is not "
            f"installed; run: pip install {pip_name}"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / file
    if not path.is_file():
        raise ArtifactNetError(
            f"demo photograph {path}: missing from the installed {pip_name}; "
            f"run: pip install --force-reinstall {pip_name}"
        )
    return path


def locate_photo(photo: Photo) -> Path:
    """Path of the photograph inside its installed package.

    Raises:
        ArtifactNetError: the package, or one of its files of this photograph, is missing; says what
            to install.
    """
    for file in (photo.repainted, photo.mask):
        if file:
            _locate(photo, file)
    return _locate(photo, photo.file)


@lru_cache(maxsize=512)
def _read(photo: Photo, file: str) -> UInt8Array:
    pixels = decode_image(
        _locate(photo, file),
        f"demo photograph {file} of {_PIP_NAMES.get(photo.package, photo.package)}",
    )
    pixels.setflags(write=False)  # shared by every crop of this process
    return pixels


def read_photo(photo: Photo) -> UInt8Array:
    """Decoded photograph, (H, W, 3) uint8 sRGB, read-only and kept for the process.

    Raises:
        ArtifactNetError: the file is missing or cannot be decoded.
    """
    return _read(photo, photo.file)


@dataclass(frozen=True, slots=True)
class _Twin:
    """One image of a pair as it is kept: JPEG bytes, and the deflated mask of a fake."""

    jpeg: bytes
    mask: bytes | None
    score: float  # plausibility
    text: str | None  # what was done to it; see `DemoSource`


class DemoSource:
    """Real crops and their fake twins of one split: ``pairs`` uids, twice as many images.

    Images are square, of ``size`` pixels; ``seed`` is that of the data (not of a training run);
    ``categories`` are the kinds of edits that may occur; ``photos`` is ``all`` or ``classic``;
    ``migan`` is the share of pairs whose fake is a repainted photograph, spread evenly; the others
    have one to ``most_edits`` edits. With ``texts`` every image has a chain of thought of what is
    known about it (`artifactnet.vlm.text.writing`), those of the test split in words of their own.
    No photograph is opened before its turn.
    """

    known_twins = True  # within a split; no photograph is in two

    def __init__(
        self,
        split: str,
        pairs: int,
        size: int,
        seed: int,
        categories: Sequence[Category],
        photos: str = "all",
        migan: float = 0.0,
        texts: bool = False,
        most_edits: int = 3,
    ):
        self.texts = texts
        self._split = split
        self._size = size
        self._seed = seed
        everything = photos_of_split(split, photos)
        self._photos = {
            EDIT: everything,
            MIGAN: tuple(photo for photo in everything if photo.repainted),
        }
        self._kept: dict[int, _Twin] = {}
        self._kept_bytes = 0
        self._plans: list[tuple[Category, ...]] = []
        self.records: list[Record] = []
        for number in range(pairs):
            repainted = math.floor((number + 1) * migan) > math.floor(number * migan)
            maker = MIGAN if repainted else EDIT
            plan = edits.choose_categories(self._rng(number, "plan"), categories, most_edits)
            self._plans.append(plan)
            uid = f"demo-{split}-{number:05d}"
            photo = self._photo(self._rng(number, "crop"), maker)
            location = f"{photo.package}/{photo.file}#{uid}"
            bits = UNCATEGORIZED_BIT if repainted else sum(category.bit for category in plan)
            self.records += (
                Record(uid, 0, "real", Annotation.CLEAN, location),
                Record(uid, 1, maker, Annotation.MASK, location, bits),
            )

    def load(self, index: int) -> Sample:
        """See `Source.load`; even is real, odd is the fake twin of the one before."""
        record = self.records[index]
        twin = self._twin(index)
        image = decode_image(twin.jpeg, record.uid)
        tags = tags_of_edits(record.categories)
        if twin.mask is None:
            return Sample(record, image, score=twin.score, text=twin.text, tags=tags)
        flat = np.frombuffer(zlib.decompress(twin.mask), np.uint8)
        mask = flat.reshape(self._size, self._size).copy()
        return Sample(record, image, mask, _heatmap(mask), twin.score, text=twin.text, tags=tags)

    def encoded(self, index: int) -> bytes:
        """The JPEG file of image ``index``."""
        return self._twin(index).jpeg

    def _rng(self, number: int, purpose: str) -> np.random.Generator:
        """Separate streams, so that a plan can be known without drawing the crop."""
        stream = ("plan", "crop", "edit").index(purpose)
        return np.random.default_rng([self._seed, _SPLITS.index(self._split), number, stream])

    def _photo(self, rng: np.random.Generator, maker: str) -> Photo:
        photos = self._photos[maker]
        weights = np.array([photo.weight for photo in photos])
        return photos[int(rng.choice(len(photos), p=weights / weights.sum()))]

    def _text(self, index: int, photo: Photo, facts: Facts) -> str | None:
        """The facts in words that this image alone decides, if texts are wanted."""
        if not self.texts:
            return None
        record = self.records[index]
        key = f"{self._seed}-{record.uid}-{record.label}"
        captions = read_captions()[photo.scene]
        return write_facts(facts, captions, key, held_out=self._split == "test")

    def _twin(self, index: int) -> _Twin:
        if index in self._kept:
            return self._kept[index]
        number, fake = divmod(index, 2)
        maker = self.records[2 * number + 1].generator
        rng = self._rng(number, "crop")
        photo = self._photo(rng, maker)
        if maker == MIGAN:
            image, edited, mask = _repainted_crop(photo, rng, self._size)
        else:
            image = _crop(read_photo(photo), rng, self._size)
        quality = int(rng.integers(_QUALITY[0], _QUALITY[1] + 1))
        if fake:
            if maker == EDIT:
                plan = self._plans[number]
                edited, mask = edits.edit_photo(image, self._rng(number, "edit"), plan)
            change = np.abs(image.astype(np.float32) - edited).mean(axis=2)
            score = 1.0 - _severity(image, edited)
            text = self._text(index, photo, find_facts(mask, change, score))
            packed = zlib.compress(mask.tobytes(), 1)
            twin = _Twin(encode_jpeg(edited, quality), packed, score, text)
        else:
            text = self._text(index, photo, UNTOUCHED)
            twin = _Twin(encode_jpeg(image, quality), None, 1.0, text)
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
    if config.demo_edits < 1:
        raise ArtifactNetError(f"data.demo_edits is {config.demo_edits}; use 1 or more")
    # repainted regions have no category, so who asks for some gets edits alone
    edited = config.demo_photos == "classic" or bool(config.demo_categories)
    makers = (EDIT,) if edited else GENERATORS
    kept = [maker for maker in makers if not config.generators or maker in config.generators]
    if not kept:
        raise ArtifactNetError(
            f"data.generators {config.generators} leaves no fakes: with data.demo_photos="
            f"{config.demo_photos} and data.demo_categories={config.demo_categories} the "
            f"generators are {', '.join(makers)}; remove the key or name one"
        )
    migan = config.demo_migan if len(kept) == 2 else float(kept[0] == MIGAN)
    splits: Splits = {}
    for split, pairs in zip(
        _SPLITS, (config.demo_train, config.demo_val, config.demo_test), strict=True
    ):
        if pairs < 0:
            raise ArtifactNetError(f"data.demo_{split} is {pairs}; use 0 or more")
        if config.limit is not None:
            pairs = min(pairs, config.limit)
        if pairs:
            for photo in photos_of_split(split, config.demo_photos):
                locate_photo(photo)  # report a missing package now, not in the third epoch
            splits[split] = DemoSource(
                split, pairs, config.demo_size, config.demo_seed, categories,
                config.demo_photos, migan, config.demo_texts, config.demo_edits,
            )  # fmt: skip
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
    image = _resize(best, size)
    return np.ascontiguousarray(image[:, ::-1]) if rng.integers(2) else image


def _resize(square: UInt8Array, size: int) -> UInt8Array:
    interpolation = cv2.INTER_AREA if square.shape[0] > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(square, (size, size), interpolation=interpolation), np.uint8)


def _repainted_crop(
    photo: Photo, rng: np.random.Generator, size: int
) -> tuple[UInt8Array, UInt8Array, UInt8Array]:
    """One random square of a photograph, its repainted version and the mask of what changed.

    Squares that show too little or too much of the repainted regions are drawn again; if all do,
    the one nearest to the bounds is taken.
    """
    real, fake, marked = (_read(photo, f) for f in (photo.file, photo.repainted, photo.mask))
    short = min(real.shape[:2])
    best, best_distance = (slice(0, short), slice(0, short)), math.inf
    for _ in range(_CROP_ATTEMPTS):
        side = int(rng.integers(round(_MIGAN_SCALE[0] * short), round(_MIGAN_SCALE[1] * short) + 1))
        top = int(rng.integers(real.shape[0] - side + 1))
        left = int(rng.integers(real.shape[1] - side + 1))
        window = slice(top, top + side), slice(left, left + side)
        share = float((marked[window] > 127).mean())
        distance = max(_MASK_SHARE[0] - share, share - _MASK_SHARE[1], 0.0)
        if distance < best_distance:
            best, best_distance = window, distance
        if distance == 0:
            break
    mask = cv2.resize(marked[best][..., 0], (size, size), interpolation=cv2.INTER_AREA)
    bits = (mask > 127).astype(np.uint8) * np.uint8(UNCATEGORIZED_BIT)
    images = [_resize(source[best], size) for source in (real, fake)]
    if rng.integers(2):
        images = [np.ascontiguousarray(image[:, ::-1]) for image in images]
        bits = np.ascontiguousarray(bits[:, ::-1])
    return images[0], images[1], bits


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
