"""Labelling the images of a data set with a teacher, each of them once."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from artifactnet.data.duplicates import content_of
from artifactnet.data.sources.base import Source, Splits
from artifactnet.distillation.cache import (
    FORMAT,
    ID_BYTES,
    NO_STAMP,
    CacheWriter,
    TeacherCache,
    image_key,
    resize_maps,
)
from artifactnet.distillation.ranks import Ranks, launched_rank
from artifactnet.distillation.teachers import Teacher
from artifactnet.types import ArtifactNetError, Record, Sample, UInt8Array

logger = logging.getLogger(__name__)
_SECONDS = 10.0  # between two lines of progress


class TeacherLabeledSource:
    """Another source (same records and warnings), with the pseudo-labels of a cache."""

    def __init__(self, source: Source, cache: TeacherCache) -> None:
        self._source = source
        self._cache = cache
        self.records: Sequence[Record] = source.records
        self.warnings: tuple[str, ...] = tuple(getattr(source, "warnings", ()))

    def load(self, index: int) -> Sample:
        """Decode image ``index``; its ``teacher`` has maps of the image's size.

        Raises:
            ArtifactNetError: the image cannot be used, or it has no pseudo-label.
        """
        sample = self._source.load(index)
        answer = self._cache.read(image_key(sample.image))
        if answer is None:
            raise ArtifactNetError(
                f"{sample.record.location}: no answer of the teacher to this image; it could not "
                "use it, or the image was changed since: start again to label it"
            )
        height, width = sample.image.shape[:2]
        return replace(sample, teacher=resize_maps(answer, (height, width)))

    def encoded(self, index: int) -> bytes | None:
        """Content of the image's file, or None where the underlying source offers none."""
        read = getattr(self._source, "encoded", None)
        return None if read is None else read(index)


def label_splits(
    splits: Splits,
    teacher: Teacher,
    cache_folder: Path,
    side: int,
    batch_size: int,
    *,
    workers: int = 0,
    on_error: str = "raise",
    report: Callable[[str], None] = print,
    launch: str = "",
) -> dict[str, TeacherLabeledSource]:
    """Let a teacher label every image that has no pseudo-label of it yet.

    May be stopped at any time, by Ctrl-C or worse: called again, it continues. Several processes
    may label at once, into one folder; those that torchrun or srun started together take a share
    each, and wait for one another (see `artifactnet.distillation.ranks`).

    Args:
        splits: the images.
        teacher: labels them.
        cache_folder: of the pseudo-labels of all teachers; this one's get a folder in it.
        side: longer side of a stored map, pixels. Another side is another set of pseudo-labels.
        batch_size: images that pass through the teacher together.
        workers: processes that decode ahead of the teacher; 0 decodes in between.
        on_error: ``raise``, or ``skip``: an image that cannot be used is logged and left out.
        report: is given lines of progress.
        launch: names the run, in case processes of several runs share the cache.

    Raises:
        ArtifactNetError: an image that cannot be used or labelled, a cache that is broken or cannot
            be written, or another process of the launch failed. What was labelled before is kept.
    """
    teacher.check(splits)
    identity = {**teacher.identity, "side": side, "format": FORMAT}
    cache = TeacherCache(Path(cache_folder), identity, teacher.about)
    ranks = Ranks(cache.folder, launch, *launched_rank())
    before = len(cache)
    with ranks.share():
        for name, source in splits.items():
            known = cache.known()
            images = _Unlabelled(source, teacher.prepare, known, ranks)
            with CacheWriter(cache, side) as writer:
                batches = _Batches(teacher, writer, known[0], batch_size, on_error)
                _label_split(name, images, batches, workers, report, ranks)
            cache.refresh()
    cache.refresh()
    total = sum(len(source.records) for source in splits.values())
    report(
        f"teacher {teacher.about['name']}: {len(cache) - before} images labelled, "
        f"answers to {len(cache)} in {cache.folder} ({total} images in this run)"
    )
    return {name: TeacherLabeledSource(source, cache) for name, source in splits.items()}


@dataclass(frozen=True, slots=True)
class _Item:
    """An image on its way to the teacher; without ``prepared`` where it has a pseudo-label."""

    key: bytes
    stamp: bytes
    prepared: Any = None


class _Unlabelled(Dataset["_Item | ArtifactNetError | None"]):
    """This process's share of a split, prepared for the teacher; None where the file is known."""

    def __init__(
        self,
        source: Source,
        prepare: Callable[[Record, UInt8Array], Any],
        known: tuple[set[bytes], set[bytes]],
        ranks: Ranks,
    ) -> None:
        self._source = source
        self._prepare = prepare
        self._keys, self._stamps = known
        self._indices = range(ranks.rank, len(source.records), ranks.world)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, number: int) -> _Item | ArtifactNetError | None:
        # An error is returned: raised in a worker, its one line would drown in a traceback.
        index = self._indices[number]
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
    with suppress(ArtifactNetError, OSError):  # decoding the image will report what is wrong
        content = content_of(source, index)
        if isinstance(content, bytes):
            return blake2b(content, digest_size=ID_BYTES).digest()
        if content is not None:
            state = os.stat(content)
            text = f"{os.path.abspath(content)}\0{state.st_size}\0{state.st_mtime_ns}"
            return blake2b(text.encode(), digest_size=ID_BYTES).digest()
    return NO_STAMP


def _label_split(
    name: str,
    images: _Unlabelled,
    batches: _Batches,
    workers: int,
    report: Callable[[str], None],
    ranks: Ranks,
) -> None:
    """Label the images of a split, decoded by ``workers`` processes, in order."""
    loader = DataLoader(
        images,
        batch_size=None,
        collate_fn=_as_is,
        worker_init_fn=_init_worker,
        generator=torch.Generator(),  # else labelling draws from the run's own random state
        num_workers=workers,
        prefetch_factor=max(2, -(-batches.size // workers)) if workers else None,
    )
    total, known = len(images), 0
    start = reported = time.monotonic()
    for seen, item in enumerate(loader, 1):
        if item is None and known == seen - 1:
            known, start = seen, time.monotonic()  # the rate is that of new images
        batches.add(item)
        ranks.beat()
        now = time.monotonic()
        if now - reported >= _SECONDS:
            reported = now
            report(_progress(name, seen, known, total, now - start))
    batches.flush()


class _Batches:
    """Collects images for the teacher, batch by batch; images in ``keys`` are skipped."""

    def __init__(
        self, teacher: Teacher, writer: CacheWriter, keys: set[bytes], size: int, on_error: str
    ) -> None:
        self.size = size
        self._teacher, self._writer, self._on_error = teacher, writer, on_error
        self._keys = keys  # of labelled and waiting images
        self._waiting: list[_Item] = []

    def add(self, item: _Item | ArtifactNetError | None) -> None:
        if isinstance(item, ArtifactNetError):
            self._refuse(item)
        elif item is not None and item.key not in self._keys:
            self._keys.add(item.key)
            self._waiting.append(item)
            if len(self._waiting) >= self.size:
                self.flush()

    def flush(self) -> None:
        """Label the waiting images together; one by one where one spoils the batch."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            answers = self._teacher.label([item.prepared for item in waiting])
        except ArtifactNetError as error:
            if len(waiting) == 1:
                return self._refuse(error)
            for item in waiting:
                self._waiting = [item]
                self.flush()
            return None
        for item, answer in zip(waiting, answers, strict=True):
            self._writer.add(item.key, item.stamp, answer)
        return None

    def _refuse(self, error: ArtifactNetError) -> None:
        if self._on_error == "raise":
            raise error
        logger.warning("not labelled (data.on_error=skip): %s", error)


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
