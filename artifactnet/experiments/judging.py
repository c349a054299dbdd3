"""All models on one set at one level of damage: each image is read and damaged once.

The answer of a model about an image is a line of ``MODEL/SET/LEVEL.jsonl``, written as the work
goes on, and holds all that figures need. Called again after a kill, `judge_level` does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from artifactnet.data.damage import (
    Level,
    as_jpeg,
    damage_boxes,
    damage_mask,
    damage_pixels,
)
from artifactnet.data.regions import Corners, draw_corners, regions_of_mask
from artifactnet.data.test_sets.base import TestSet, file_version
from artifactnet.experiments.evaluated_models import EvaluatedModel, Judgment, Localization, Shown
from artifactnet.files import staging_folder
from artifactnet.inference.answers import UNANSWERED, AnswerLines
from artifactnet.inference.inputs import Failure
from artifactnet.inference.stream import prefetch
from artifactnet.metrics.box_sets import box_set_areas
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample, UInt8Array

RECODED = 95  # JPEG quality
_BLOCK = 16  # images that are in memory together, at least
_REPORT_EVERY = 30.0  # seconds
_KEYS = (
    "path",
    "bytes",
    "modified",
    "is_fake",
    "probability",
    "boxes",
    "areas",
    "truth",
    "problem",
)
_ADVICE = "choose another --out, or delete that folder"


@dataclass(frozen=True, slots=True)
class Conditions:
    """How images are shown, beside their level.

    Attributes:
        seed: of crops.
        recode: save every image as JPEG of quality `RECODED` first, so that both classes have one
            file history.
        workers: threads that read and damage ahead of the models; 0: none.
    """

    seed: int = 0
    recode: bool = False
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Truth:
    """Where a fake has artifacts, after the damage: boxes where people drew some, else a mask.

    Attributes:
        lost: the image had artifacts, and the damage cut all of them off.
    """

    boxes: tuple[Corners, ...] | None
    mask: UInt8Array | None
    lost: bool

    def areas(
        self, judgment: Judgment | None, size: tuple[int, int], localization: Localization
    ) -> list[float]:
        """Pixels in both the model's regions and the truth's, and in either.

        Boxes count only beside the verdict fake; a model that failed has no region.

        Args:
            judgment: of the model; None: it failed.
            size: (height, width) of the damaged image.
            localization: what the model draws.
        """
        if localization == "map":
            theirs = self.mask
            if theirs is None:
                theirs = draw_corners(self.boxes or (), size)
            truth = theirs > 0
            mine = np.zeros_like(truth)
            if judgment is not None and judgment.mask is not None:
                mine = judgment.mask
            return [float(np.count_nonzero(mine & truth)), float(np.count_nonzero(mine | truth))]
        boxes = self.boxes
        if boxes is None and self.mask is not None:
            boxes = tuple(region.bbox for region in regions_of_mask(self.mask))
        drawn = judgment.boxes if judgment is not None and judgment.is_fake else None
        found = box_set_areas(drawn or (), boxes or (), (size[1], size[0]))
        return [found.intersection, found.union]


def damage_truth(sample: Sample, level: Level, seed: int, key: str) -> Truth | None:
    """What is known about where an image has artifacts; None of real and unannotated images.

    Raises:
        ArtifactNetError: the image is too small for a crop.
    """
    record = sample.record
    if record.label == 0 or record.annotation is Annotation.NONE:
        return None
    if sample.regions or sample.mask is None:
        before = [region.bbox for region in sample.regions or ()]
        height, width = sample.image.shape[:2]
        boxes = tuple(damage_boxes(before, (height, width), level, seed, key))
        return Truth(boxes, None, lost=bool(before) and not boxes)
    mask = damage_mask(sample.mask, level, seed, key)
    return Truth(None, mask, lost=bool(sample.mask.any()) and not mask.any())


@dataclass(frozen=True, slots=True)
class _Image:
    """An image that models are asked about, or why none can be."""

    index: int
    shown: Shown | None
    truth: Truth | None
    problem: str | None = None


def judge_level(
    test_set: TestSet,
    level: Level,
    models: Sequence[EvaluatedModel],
    folder: Path,
    conditions: Conditions = Conditions(),
    report: Callable[[str], None] | None = None,
    where: bool = True,
) -> dict[str, list[dict[str, Any]]]:
    """Ask all models about all images of a set at one level.

    Args:
        test_set: the images.
        level: of damage.
        models: one that cannot judge this set at this level is left out.
        folder: of the answers.
        conditions: how images are shown.
        report: called with a line of progress now and then.
        where: also compare where models see artifacts, if the set knows where there are any.

    Returns:
        By name of the model, a line per image, in their order: ``path`` (its key); ``is_fake`` and
        ``probability``, or a ``problem``; ``boxes`` of a model that draws some; ``truth`` of an
        annotated fake, ``known`` or ``lost``, else ``none``; ``areas``, see `Truth.areas`.

    Raises:
        ArtifactNetError: there are answers of another model or other conditions, another process
            writes there, a file cannot be written, or a model cannot go on.
    """
    where = where and any(
        record.label == 1 and record.annotation is not Annotation.NONE
        for record in test_set.records
    )
    asked = [one for one in models if one.covers(test_set.name, level.name)]
    try:
        with ExitStack() as stack:
            logs = [
                stack.enter_context(_Log(one, test_set, level, folder, conditions, where))
                for one in asked
            ]
            _ask(test_set, level, logs, conditions, report, where)
            return {log.model.name: log.finish() for log in logs}
    except KeyboardInterrupt as stop:
        stop.args = (f"answers so far are in {folder}; the same command goes on",)
        raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the file system refuses becomes an `ArtifactNetError` that names the answers."""
    try:
        yield
    except OSError as error:
        raise ArtifactNetError(f"{path}: answers cannot be written: {error}") from error


def _ask(
    test_set: TestSet,
    level: Level,
    logs: Sequence[_Log],
    conditions: Conditions,
    report: Callable[[str], None] | None,
    where: bool,
) -> None:
    size = max([_BLOCK, *(log.model.batch_size for log in logs)])
    total = len(test_set.keys)
    blocks = [range(start, min(start + size, total)) for start in range(0, total, size)]
    todo = [[k for k in block if any(log.lacks(k) for log in logs)] for block in blocks]
    read = partial(_read, test_set, level, conditions)
    images = prefetch(
        read, (k for block in todo for k in block), conditions.workers, 2 * conditions.workers
    )
    done, said = 0, time.monotonic()
    for block in filter(None, todo):
        shown = [next(images) for _ in block]
        for log in logs:
            log.ask([image for image in shown if log.lacks(image.index)], where)
        done += len(block)
        if report is not None and time.monotonic() > said + _REPORT_EVERY:
            said = time.monotonic()
            report(f"{test_set.name} {level.name}: {done} of {sum(map(len, todo))} images")


def show(test_set: TestSet, level: Level, conditions: Conditions, index: int) -> UInt8Array:
    """Pixels of an image of a set as models are shown it, (H, W, 3).

    Raises:
        ArtifactNetError: it cannot be decoded, or damaged in this way.
    """
    return _damaged(test_set.load(index), test_set.keys[index], level, conditions)


def _damaged(sample: Sample, key: str, level: Level, conditions: Conditions) -> UInt8Array:
    pixels = as_jpeg(sample.image, RECODED) if conditions.recode else sample.image
    return damage_pixels(pixels, level, conditions.seed, key)


def _read(test_set: TestSet, level: Level, conditions: Conditions, index: int) -> _Image:
    key = test_set.keys[index]
    try:
        sample = test_set.load(index)
        pixels = _damaged(sample, key, level, conditions)
        truth = damage_truth(sample, level, conditions.seed, key)
    except ArtifactNetError as error:
        return _Image(index, None, None, str(error))
    shown = Shown(test_set.name, level.name, key, test_set.names(index), pixels)
    return _Image(index, shown, truth)


class _Log:
    """The answers of one model about one set at one level."""

    def __init__(
        self,
        model: EvaluatedModel,
        test_set: TestSet,
        level: Level,
        folder: Path,
        conditions: Conditions,
        where: bool,
    ) -> None:
        self.model, self._test_set = model, test_set
        self._path = folder / model.name / test_set.name / f"{level.name}.jsonl"
        self._settings = {
            "model": model.version,
            "images": str(test_set.root.resolve()),
            "level": level.name,
            "seed": conditions.seed if level.kind == "crop" else None,
            "recode": conditions.recode,
            "regions": where,
        }
        self._order = [UNANSWERED] * len(test_set.keys)
        self._open = ExitStack()

    def __enter__(self) -> _Log:
        staging = self._path.with_suffix(".staging")
        with _writing(self._path):
            self._lines = self._open.enter_context(
                AnswerLines(
                    self._path,
                    self._open.enter_context(staging_folder(staging)),
                    self._settings,
                    resume=True,
                    keys=_KEYS,
                    advice=_ADVICE,
                )
            )
        for index, key in enumerate(self._test_set.keys):
            found = self._lines.find(key)
            if found is not None and self._holds(found[1], index):
                self._order[index] = found[0]
        return self

    def _holds(self, entry: dict[str, Any], index: int) -> bool:
        """Whether an earlier answer is about this very file and truth; failures are tried again."""
        same = (entry["bytes"], entry["modified"]) == _version(self._test_set.records[index])
        same &= entry.get("annotation", "") == self._truth(index)
        return same and entry["problem"] is None

    def _truth(self, index: int) -> str:
        """What areas depend on beside the image; empty where none are computed."""
        counts = self._settings["regions"] and self.model.localization is not None
        return self._test_set.truths[index] if counts else ""

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def lacks(self, index: int) -> bool:
        """Whether there is no answer about an image yet."""
        return self._order[index] == UNANSWERED

    def ask(self, images: Sequence[_Image], where: bool) -> None:
        """Ask about some images, and write the answers after each batch of the model.

        Batches are those of all images, so that a kill changes none, and thus no last digit.
        """
        size = self.model.batch_size
        for _, group in groupby(images, lambda image: image.index // size):
            batch = list(group)
            shown = [image.shown for image in batch if image.shown is not None]
            judgments = self.model.judge(shown, where) if shown else iter(())
            entries = [
                self._entry(image, None if image.shown is None else next(judgments))
                for image in batch
            ]
            with _writing(self._path):
                for image, entry in zip(batch, entries, strict=True):
                    self._order[image.index] = self._lines.append(entry)

    def _entry(self, image: _Image, judgment: Judgment | Failure | None) -> dict[str, Any]:
        problem = judgment.reason if isinstance(judgment, Failure) else image.problem
        said = judgment if isinstance(judgment, Judgment) else None
        truth, areas = image.truth, None
        drawn = self.model.localization if self._settings["regions"] else None
        if truth is not None and image.shown is not None and drawn is not None:
            height, width = image.shown.pixels.shape[:2]
            areas = truth.areas(said, (height, width), drawn)
        boxes = None if said is None or said.boxes is None else [list(box) for box in said.boxes]
        size, modified = _version(self._test_set.records[image.index])
        return {
            "path": self._test_set.keys[image.index],
            "bytes": size,
            "modified": modified,
            "annotation": self._truth(image.index),
            "is_fake": None if said is None else said.is_fake,
            "probability": None if said is None else said.probability,
            "boxes": boxes,
            "truth": "none" if truth is None else "lost" if truth.lost else "known",
            "areas": areas,
            "problem": problem,
        }

    def finish(self) -> list[dict[str, Any]]:
        """All answers, in the order of the images.

        Those of an earlier call about other images, of which `--limit` may leave few, are kept.
        """
        found = list(self._lines.entries(self._order))
        others = {entry["path"] for entry in self._lines.all_earlier()} - {*self._test_set.keys}
        kept = [self._lines.find(path) for path in sorted(others)]
        with _writing(self._path):
            self._lines.finish([*self._order, *(one[0] for one in kept if one is not None)])
        return found


def _version(record: Record) -> tuple[int | None, float | None]:
    """Bytes of an image's file, or of the shard that holds it, and when it was changed."""
    return file_version(record.path or record.location.rpartition("#")[0] or record.location)
