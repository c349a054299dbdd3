"""What a reader of a test set gives, whatever the layout was."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from artifactnet.data.folder_names import CLASSES
from artifactnet.data.sources.base import Source
from artifactnet.data.splits import Subset
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample


@dataclass(frozen=True)
class TestSet:
    """Images to test models on, of two classes or of one.

    Attributes:
        name: what the user calls it.
        layout: how it was read, one of `artifactnet.data.test_sets.read.LAYOUTS`.
        root: its folder or file.
        source: its images; an image that cannot be decoded is an error of ``source.load`` alone.
        keys: names of the images, made of names alone, none twice: ``GENERATOR/UID``, and where
            several images have that in common (frames of a video) ``GENERATOR/UID/PLACE``, the
            place below the root.
        parts: which part of the set, mostly a generator, each image belongs to; ``""`` to all of
            them, as photographs do that are not of one generator.
        truths: of each image a text that changes when its annotation does, see `truth_stamp`;
            ``""`` where there is none, or where it is in the file of the image.
        warnings: what must be known about the data before trusting a figure.
        left_out: reason -> images that the set has and that are not used.
    """

    __test__ = False  # or pytest takes it for a class of tests

    name: str
    layout: str
    root: Path
    source: Source
    keys: tuple[str, ...]
    parts: tuple[str, ...]
    truths: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def records(self) -> Sequence[Record]:
        """One record per image, in the order of ``keys`` and ``parts``."""
        return self.source.records

    @property
    def only(self) -> Literal["real", "fake"] | None:
        """The class of all images; None where there are both."""
        labels = {record.label for record in self.records}
        if len(labels) > 1:
            return None
        return "fake" if 1 in labels else "real"

    def names(self, index: int) -> tuple[str, ...]:
        """What a file of predictions may call image ``index``; the last is its absolute path."""
        record, root = self.records[index], self.root if self.root.is_dir() else self.root.parent
        uid, place = f"{record.generator}/{record.uid}", _place(record.location, root)
        return self.keys[index], uid, place, os.path.abspath(record.location)

    def load(self, index: int) -> Sample:
        """Decode image ``index``; its truth is ``regions``, else ``mask``, where there is any.

        Raises:
            ArtifactNetError: the image or its annotation cannot be used; the message names it.
        """
        return self.source.load(index)

    def select(self, indices: Sequence[int], reason: str = "") -> TestSet:
        """These images, in this order; with a ``reason`` the others are listed as left out.

        Raises:
            ArtifactNetError: none is left.
        """
        kept = set(indices)
        gone = tuple(r.location for k, r in enumerate(self.records) if k not in kept)
        if not kept:
            raise ArtifactNetError(
                f"{self.name}={self.root}: no image is left: all {reason}".rstrip()
            )
        left_out = dict(self.left_out)
        if reason and gone:
            left_out[reason] = (*left_out.get(reason, ()), *gone)
        return replace(
            self,
            source=Subset(self.source, indices),
            keys=tuple(self.keys[k] for k in indices),
            parts=tuple(self.parts[k] for k in indices),
            truths=tuple(self.truths[k] for k in indices),
            left_out=left_out,
        )

    def counts(self) -> dict[str, int]:
        """How many images there are: ``images``, ``real``, ``fake`` and ``left out``."""
        labels = Counter(CLASSES[record.label] for record in self.records)
        return {
            "images": len(self.records),
            **{label: labels[label] for label in CLASSES},
            "left out": sum(map(len, self.left_out.values())),
        }


@dataclass(frozen=True)
class Reading:
    """What a layout's reader found; `make_test_set` makes a `TestSet` of it.

    ``parts`` defaults to the generator of a fake, and ``""`` of a real image; ``truths`` to ``""``.
    """

    source: Source
    parts: tuple[str, ...] | None = None
    truths: tuple[str, ...] | None = None
    warnings: Iterable[str] = ()
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)


def plain_record(uid: str, maker: str, location: str, path: str | None = None) -> Record:
    """Record of an image that nobody annotated; ``maker`` is ``real`` or the generator."""
    label = int(maker != "real")
    state = Annotation.NONE if label else Annotation.CLEAN
    return Record(uid, label, maker, state, location, path=path)


def make_test_set(name: str, layout: str, root: Path, found: Reading) -> TestSet:
    """Name the images of a reading.

    Raises:
        ArtifactNetError: it has no image, or two images at one place.
    """
    records = found.source.records
    if not records:
        why = "; ".join(f"{len(names)} {reason}" for reason, names in found.left_out.items())
        raise ArtifactNetError(f"no images found{': ' if why else ''}{why}")
    parts = found.parts
    if parts is None:
        parts = tuple(record.generator if record.label else "" for record in records)
    left_out = {reason: tuple(names) for reason, names in found.left_out.items() if names}
    keys = _keys(records, root)
    truths = ("",) * len(records) if found.truths is None else found.truths
    warnings = tuple(found.warnings)
    return TestSet(name, layout, root, found.source, keys, parts, truths, warnings, left_out)


def truth_stamp(record: Record, files: Iterable[str | None], words: object = None) -> str:
    """A text that changes when the annotation of a fake does.

    Args:
        record: of the image.
        files: that its annotation is read from; of each its path, size and time count.
        words: what else says where artifacts are.
    """
    if record.label == 0 or record.annotation is Annotation.NONE:
        return ""
    versions = [(path, *file_version(path)) for path in files if path is not None]
    about = repr((record.annotation.name, versions, words))
    return blake2b(about.encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()


def file_version(path: str) -> tuple[int | None, float | None]:
    """Bytes of a file, and when it was changed; None where reading it will say what is wrong."""
    try:
        status = os.stat(path)
    except OSError:
        return None, None
    return status.st_size, status.st_mtime


def join_reals(test_set: TestSet, other: TestSet) -> TestSet:
    """A set of fakes together with the real images of another set.

    Raises:
        ArtifactNetError: the first set has real images, or the other has none.
    """
    real = [k for k, record in enumerate(other.records) if record.label == 0]
    if test_set.only != "fake":
        raise ArtifactNetError(f"{test_set.name}: has real images of its own")
    if not real:
        raise ArtifactNetError(f"{other.name}={other.root}: has no real images for {test_set.name}")
    added = other.select(real)
    return replace(
        test_set,
        source=Joined((test_set.source, added.source)),
        keys=test_set.keys + added.keys,
        parts=test_set.parts + ("",) * len(real),
        truths=test_set.truths + added.truths,
        warnings=(*test_set.warnings, f"{len(real)} real images are of {other.name}={other.root}"),
    )


class Joined:
    """Images of several sources, one after another."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._places = [(one, k) for one in sources for k in range(len(one.records))]
        self.records: list[Record] = [record for one in sources for record in one.records]

    def load(self, index: int) -> Sample:
        """See `Source.load`."""
        source, place = self._places[index]
        return source.load(place)

    def encoded(self, index: int) -> bytes | None:
        """Content of the image's file, or None where the underlying source offers none."""
        source, place = self._places[index]
        return Subset(source, (place,)).encoded(0)


def _keys(records: Sequence[Record], root: Path) -> tuple[str, ...]:
    names = [f"{record.generator}/{record.uid}" for record in records]
    count = Counter(names)
    folder = root if root.is_dir() else root.parent
    keys = tuple(
        name if count[name] == 1 else f"{name}/{_place(record.location, folder)}"
        for name, record in zip(names, records, strict=True)
    )
    first: dict[str, Record] = {}
    for key, record in zip(keys, records, strict=True):
        if first.setdefault(key, record) is not record:
            raise ArtifactNetError(
                f"{record.where or record.location}: has generator, uid and place of another "
                f"image, {first[key].where or first[key].location}; give it a uid of its own"
            )
    return keys


def _place(location: str, folder: Path) -> str:
    return Path(os.path.relpath(location, folder)).as_posix()
