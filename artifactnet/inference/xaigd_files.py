"""Writing predictions in the folder layouts and the table that X-AIGD's scripts score."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from artifactnet.files import atomic_path
from artifactnet.inference.collect import unsafe_name
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
INSTANCES = "instances.csv"


class XaigdWriter:
    """Writes masks (both layouts, into a folder) and rows of instances, image by image.

    Attributes:
        uncategorized: regions without a category so far; the table has no row for them.
    """

    def __init__(self, folder: Path, table: Any) -> None:
        self.uncategorized = 0
        self._folder = folder
        self._table = table
        self._taken: dict[tuple[str, str], str] = {}

    def check(self, source: ImageInput) -> str | None:
        """Why a prediction of ``source`` cannot be written, in one line; None if it can."""
        for what, name in (("generator", source.generator), ("uid", source.uid)):
            problem = unsafe_name(name)
            if problem is not None:
                return f"its {what} {name!r:.80} {problem}"
        first = self._taken.get(_key(source))
        if first is None:
            return None
        return (
            f"generator {source.generator!r} and uid {source.uid!r} are those of {first} too; "
            "the masks of both would have one name"
        )

    def write(self, source: ImageInput, answer: Prediction) -> None:
        """Write masks and rows of one image; an empty mask gets no file, as in the benchmark."""
        assert answer.mask is not None
        generator, uid = _key(source)
        self._taken[generator, uid] = source.name
        _save(answer.mask != 0, self._folder / AGNOSTIC / generator / uid)
        for category in CATEGORIES:
            plane = (answer.mask & category.bit) != 0
            _save(plane, self._folder / FINE_GRAINED / generator / category.label / uid)
        for instance in answer.instances:
            if instance.category == UNCATEGORIZED:
                self.uncategorized += 1
            else:
                self._table.writerow((generator, uid, instance.category, *instance.box))


def _key(source: ImageInput) -> tuple[str, str]:
    return str(source.generator), str(source.uid)


def _save(plane: npt.NDArray[np.bool_], folder: Path) -> None:
    if plane.any():
        folder.mkdir(parents=True)
        pixels: UInt8Array = plane.astype(np.uint8) * np.uint8(255)
        Image.fromarray(pixels).save(folder / "mask.png")


@contextmanager
def xaigd_writer(out: Path) -> Iterator[XaigdWriter]:
    """``masks/`` and ``instances.csv`` in ``out``, which appear when the block ends without error.

    Masks of two runs are never mixed, since a missing file means that nothing was found.

    Raises:
        ArtifactNetError: ``out`` holds masks already.
        OSError: the files cannot be written.
    """
    masks = out / MASKS
    if os.path.lexists(masks):
        raise ArtifactNetError(
            f"{masks} exists already, and a mask that is missing counts as an answer; remove it "
            "or write to another folder"
        )
    staging = out / f".{MASKS}.{os.getpid()}.tmp"
    try:
        for layout in TASKS:
            (staging / layout).mkdir(parents=True)
        with (
            atomic_path(out / INSTANCES) as temporary,
            open(temporary, "w", encoding="utf-8", newline="") as handle,
        ):
            table = csv.writer(handle, lineterminator="\n")
            table.writerow(INSTANCE_COLUMNS)
            yield XaigdWriter(staging, table)
        os.replace(staging, masks)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
