"""Writing predictions in the folder layouts and the table that X-AIGD's scripts score."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from artifactnet import names
from artifactnet.files import atomic_path
from artifactnet.inference.inputs import ImageInput
from artifactnet.taxonomy import (
    AGNOSTIC,
    CATEGORIES,
    FINE_GRAINED,
    INSTANCE_COLUMNS,
    TASKS,
    UNCATEGORIZED,
)
from artifactnet.types import ArtifactNetError, Prediction, UInt8Array

MASKS = "masks"
PARTIAL_MASKS = "masks.partial"  # until all of them are there
INSTANCES = "instances.csv"
_UNKNOWN = "unknown"  # folder of images without a generator

Key = tuple[str, str]  # generator and uid


class MaskWriter:
    """Writes masks (both layouts, into a folder), image by image.

    The folders of an image have its generator and uid, as `artifactnet.names.file_name` makes
    them.

    Attributes:
        resumed: whether the folder holds the masks of an earlier run.
        written: images whose masks were written.
    """

    def __init__(self, folder: Path, limit: int, resumed: bool) -> None:
        self.resumed, self.written = resumed, 0
        self._folder, self._limit = folder, limit
        self._taken: dict[Key, str] = {}

    def check(self, source: ImageInput) -> str | None:
        """Why the masks of ``source`` cannot be written, in one line; None if they can."""
        first = self._taken.get(self._key(source.generator, source.uid))
        if first is None:
            return None
        return (
            f"generator {source.generator!r} and uid {source.uid!r} are those of {first} too; "
            "the masks of both would have one name"
        )

    def take(self, source: ImageInput) -> None:
        """Note that the masks of ``source`` are there."""
        self._taken[self._key(source.generator, source.uid)] = source.name

    def write(self, source: ImageInput, answer: Prediction) -> None:
        """Write the masks of one image; an empty mask gets no file, as in the benchmark."""
        assert answer.mask is not None
        key = self._key(source.generator, source.uid)
        if self.resumed:
            self._remove(key)
        self.take(source)
        self.written += 1
        whole, *planes = self._folders(key)
        _save(answer.mask != 0, whole)
        for category, folder in zip(CATEGORIES, planes, strict=True):
            _save((answer.mask & category.bit) != 0, folder)

    def keep_only_taken(self, entries: Iterable[dict[str, Any]]) -> None:
        """Remove the masks of earlier answers whose images are no longer among the inputs."""
        for entry in entries:
            key = self._key(entry["generator"], entry["uid"])
            if key not in self._taken:
                self._remove(key)

    def _key(self, generator: str | None, uid: str | None) -> Key:
        return (
            names.file_name(generator or _UNKNOWN, self._limit),
            names.file_name(uid or "", self._limit),
        )

    def _folders(self, key: Key) -> list[Path]:
        """Of an image's masks: any artifact, then each category."""
        generator, uid = key
        fine = self._folder / FINE_GRAINED / generator
        whole = self._folder / AGNOSTIC / generator / uid
        return [whole, *(fine / category.label / uid for category in CATEGORIES)]

    def _remove(self, key: Key) -> None:
        for folder in self._folders(key):
            if folder.is_dir():
                shutil.rmtree(folder)


def _save(plane: npt.NDArray[np.bool_], folder: Path) -> None:
    if plane.any():
        folder.mkdir(parents=True)
        pixels: UInt8Array = plane.astype(np.uint8) * np.uint8(255)
        Image.fromarray(pixels).save(folder / "mask.png")


@contextmanager
def mask_writer(out: Path, resume: bool = False) -> Iterator[MaskWriter]:
    """``masks/`` in ``out``, which appears when the block ends without error.

    Until then the masks are in ``masks.partial/``. Masks of two runs are never mixed, since a
    missing file means that nothing was found.

    Args:
        out: folder of the predictions.
        resume: keep the masks of an interrupted or finished run. False: those of an interrupted
            run are removed.

    Raises:
        ArtifactNetError: ``out`` holds masks already, and they are not to be resumed.
        OSError: the files cannot be written.
    """
    masks, partial = out / MASKS, out / PARTIAL_MASKS
    finished = resume and masks.is_dir() and not partial.exists()
    if finished:
        os.replace(masks, partial)
    elif not resume and partial.is_dir():
        shutil.rmtree(partial)
    if os.path.lexists(masks):
        raise ArtifactNetError(
            f"{masks} exists already, and a mask that is missing counts as an answer; remove it "
            "or write to another folder"
        )
    resumed = partial.is_dir()
    for layout in TASKS:
        (partial / layout).mkdir(parents=True, exist_ok=True)
    writer = MaskWriter(partial, names.name_limits(out)[0], resumed)
    try:
        yield writer
    except BaseException:
        if not writer.written:  # as it was
            if finished:
                os.replace(partial, masks)
            elif not resumed:
                shutil.rmtree(partial)
        raise
    os.replace(partial, masks)


def write_instances(file: Path, entries: Iterable[dict[str, Any]], staging: Path) -> int:
    """Write the regions of predictions, as in ``predictions.jsonl``, to a table.

    Returns:
        The number of regions without a category; the table has no row for them.

    Raises:
        OSError: the file cannot be written.
    """
    uncategorized = 0
    with (
        atomic_path(file, staging) as temporary,
        # half a character of a file's name is spelled out
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as handle,
    ):
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(INSTANCE_COLUMNS)
        for entry in entries:
            for instance in entry["instances"] or ():
                if instance["category"] == UNCATEGORIZED:
                    uncategorized += 1
                else:
                    place = (entry["generator"], entry["uid"])
                    table.writerow((*place, instance["category"], *instance["box"]))
    return uncategorized
