"""Asking a teacher about every image of a data set, once."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from artifactnet.data.duplicates import content_of
from artifactnet.data.geometry import resample
from artifactnet.data.sources.base import Source, Splits
from artifactnet.distillation.cache import (
    FORMAT,
    ID_BYTES,
    NO_STAMP,
    TeacherCache,
    Writer,
    image_key,
)
from artifactnet.distillation.teachers import Teacher
from artifactnet.types import ArtifactNetError, Record, Sample, TeacherAnswer, UInt8Array


class TeacherLabeledSource:
    """Another source, with the answers of a cache.

    Args:
        source: the images.
        cache: what the teacher said about them.

    Attributes:
        records: those of ``source``.
        warnings: those of ``source``.
    """

    def __init__(self, source: Source, cache: TeacherCache) -> None:
        self._source = source
        self._cache = cache
        self.records: Sequence[Record] = source.records
        self.warnings: tuple[str, ...] = tuple(getattr(source, "warnings", ()))

    def load(self, index: int) -> Sample:
        """Decode image ``index``; its ``teacher`` has maps of the image's size.

        Raises:
            ArtifactNetError: the image cannot be used, or the teacher was never asked about it.
        """
        sample = self._source.load(index)
        answer = self._cache.read(image_key(sample.image))
        if answer is None:
            raise ArtifactNetError(
                f"{sample.record.location}: no answer of the teacher to this image; it could not "
                "use it, or the image was changed since: start again to label it"
            )
        height, width = sample.image.shape[:2]
        return replace(sample, teacher=enlarged(answer, (height, width)))

    def encoded(self, index: int) -> bytes | None:
        """Content of the image's file, or None where the underlying source offers none."""
        read = getattr(self._source, "encoded", None)
        return None if read is None else read(index)


def enlarged(answer: TeacherAnswer, size: tuple[int, int]) -> TeacherAnswer:
    """The answer with maps of ``size`` (height, width), interpolated linearly."""
    heatmap, sigma = resample(answer.heatmap, size), resample(answer.sigma, size)
    return replace(answer, heatmap=np.clip(heatmap, 0.0, 1.0), sigma=sigma)


logger = logging.getLogger(__name__)
_SECONDS = 10.0  # between two lines of progress


@dataclass(frozen=True, slots=True)
class _Item:
    """An image on its way to the teacher; without ``prepared`` where it has an answer."""

    key: bytes
    stamp: bytes
    prepared: Any = None


class _Unlabelled(Dataset["_Item | ArtifactNetError | None"]):
    """Images of a split, made ready for the teacher; None for those whose file is known."""

    def __init__(
        self,
        source: Source,
        prepare: Callable[[Record, UInt8Array], Any],
        known: tuple[set[bytes], set[bytes]],
    ) -> None:
        self._source = source
        self._prepare = prepare
        self._keys, self._stamps = known

    def __len__(self) -> int:
        return len(self._source.records)

    def __getitem__(self, index: int) -> _Item | ArtifactNetError | None:
        # An error is returned: raised in a worker, its one line would drown in a traceback.
        stamp = file_stamp(self._source, index)
        if stamp != NO_STAMP and stamp in self._stamps:
            return None
        try:
            sample = self._source.load(index)
            key = image_key(sample.image)
            if key in self._keys:
                return _Item(key, stamp)
            return _Item(key, stamp, self._prepare(sample.record, sample.image))
        except ArtifactNetError as error:
            return ArtifactNetError(str(error))


def file_stamp(source: Source, index: int) -> bytes:
    """16 bytes that tell, without decoding, that an image's file is still the same.

    Made of path, size and time of change of its file, or of the content where it lies in a shard;
    `NO_STAMP` where there is neither.
    """
    with suppress(ArtifactNetError, OSError):  # whoever decodes the image says what is wrong
        content = content_of(source, index)
        if isinstance(content, bytes):
            return blake2b(content, digest_size=ID_BYTES).digest()
        if content is not None:
            state = os.stat(content)
            text = f"{os.path.abspath(content)}\0{state.st_size}\0{state.st_mtime_ns}"
            return blake2b(text.encode(), digest_size=ID_BYTES).digest()
    return NO_STAMP


def label(
    splits: Splits,
    teacher: Teacher,
    cache_folder: Path,
    side: int,
    batch_size: int,
    *,
    workers: int = 0,
    on_error: str = "raise",
    report: Callable[[str], None] = print,
) -> dict[str, TeacherLabeledSource]:
    """Ask a teacher about every image that it was not asked about before.

    May be stopped at any time, by Ctrl-C or worse: called again, it goes on where it was. Several
    processes may label at once, into one folder.

    Args:
        splits: the images.
        teacher: the one to ask.
        cache_folder: of all teachers' answers; this one's get a folder in it.
        side: longer side of a stored map, pixels. Answers of another side are other answers.
        batch_size: images that pass through the teacher together.
        workers: processes that decode ahead of the teacher; 0 decodes in between.
        on_error: ``raise``, or ``skip``: an image that cannot be used is logged and left out.
        report: is given lines of progress.

    Returns:
        The same splits, with answers.

    Raises:
        ArtifactNetError: an image that cannot be used, a teacher that has no answer, a cache that
            is broken or cannot be written. What was answered before is kept.
    """
    teacher.check(splits)
    identity = {**teacher.identity, "side": side, "format": FORMAT}
    cache = TeacherCache(Path(cache_folder), identity, teacher.about)
    before = len(cache)
    for name, source in splits.items():
        known = cache.known()
        with Writer(cache, side) as writer:
            job = _Job(name, teacher, writer, known[0], batch_size, on_error, report)
            job.run(_Unlabelled(source, teacher.prepare, known), workers)
        cache.refresh()
    total = sum(len(source.records) for source in splits.values())
    report(
        f"teacher {teacher.about['name']}: {len(cache) - before} images labelled, "
        f"answers to {len(cache)} in {cache.folder} ({total} images in this run)"
    )
    return {name: TeacherLabeledSource(source, cache) for name, source in splits.items()}


class _Job:
    """Labelling of one split."""

    def __init__(
        self,
        name: str,
        teacher: Teacher,
        writer: Writer,
        keys: set[bytes],
        batch_size: int,
        on_error: str,
        report: Callable[[str], None],
    ) -> None:
        self._name, self._teacher, self._writer = name, teacher, writer
        self._keys = keys  # with an answer, or waiting for one
        self._batch_size, self._on_error, self._report = batch_size, on_error, report
        self._waiting: list[_Item] = []

    def run(self, images: _Unlabelled, workers: int) -> None:
        """Ask about the images that have no answer yet."""
        total, known = len(images), 0
        start = said = time.monotonic()
        for seen, item in enumerate(_items(images, workers, self._batch_size), 1):
            if item is None and known == seen - 1:
                known, start = seen, time.monotonic()  # work of an earlier run says no rate
            self._take(item)
            now = time.monotonic()
            if now - said >= _SECONDS:
                said = now
                self._report(_progress(self._name, seen, known, total, now - start))
        self._ask()

    def _take(self, item: _Item | ArtifactNetError | None) -> None:
        if isinstance(item, ArtifactNetError):
            self._refuse(item)
        elif item is not None and item.key not in self._keys:
            self._keys.add(item.key)
            self._waiting.append(item)
            if len(self._waiting) >= self._batch_size:
                self._ask()

    def _ask(self) -> None:
        """Send the waiting images to the teacher; where one spoils the batch, one by one."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            answers = self._teacher.answer([item.prepared for item in waiting])
        except ArtifactNetError as error:
            if len(waiting) == 1:
                return self._refuse(error)
            for item in waiting:
                self._waiting = [item]
                self._ask()
            return None
        for item, answer in zip(waiting, answers, strict=True):
            self._writer.add(item.key, item.stamp, answer)
        return None

    def _refuse(self, error: ArtifactNetError) -> None:
        if self._on_error == "raise":
            raise error
        logger.warning("not labelled (data.on_error=skip): %s", error)


def _items(
    images: _Unlabelled, workers: int, ahead: int
) -> Iterator[_Item | ArtifactNetError | None]:
    """Every image in order, decoded by ``workers`` processes."""
    yield from DataLoader(
        images,
        batch_size=None,
        collate_fn=_as_is,
        worker_init_fn=_init_worker,
        generator=torch.Generator(),  # else labelling draws from the run's own random state
        num_workers=workers,
        prefetch_factor=max(2, -(-ahead // workers)) if workers else None,
    )


def _init_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the worker processes are the parallelism


def _as_is(item: Any) -> Any:
    return item


def _progress(name: str, seen: int, known: int, total: int, seconds: float) -> str:
    line = f"labelling {name}: {seen} of {total} images"
    if seen == known:
        return f"{line}, all known"
    rate = (seen - known) / max(seconds, 1e-9)
    return f"{line}, {rate:.1f} images/s, {(total - seen) / rate / 60:.1f} min left"
