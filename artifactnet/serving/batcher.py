"""Dynamic batching: images that arrive within milliseconds pass through the model together.

Threads decode and preprocess, one thread owns the model. Nothing here knows HTTP.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from artifactnet.inference.base import BasePredictor, PredictOptions, PreparedImage
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.types import ArtifactNetError, Prediction

T = TypeVar("T")
_RECENT = 0.1  # share of the newest batch in the running mean of seconds per image


class QueueFull(Exception):
    """More images than the batcher may hold.

    Attributes:
        retry_after: seconds after which there is probably room.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__("the queue is full")
        self.retry_after = retry_after


class Cancelled(Exception):
    """Nobody wanted the answer any more."""


class Submission(Generic[T]):
    """Images of one request on their way.

    Attributes:
        answers: one future per image, in order. It gets what ``finish`` made of the prediction, or
            a `Failure`; or it raises `Cancelled`, or what the model raised, which is a bug.
    """

    def __init__(self, images: int) -> None:
        self.answers: list[Future[T | Failure]] = [Future() for _ in range(images)]
        self.cancelled = False

    def cancel(self) -> None:
        """Let go of the images that the model has not seen yet."""
        self.cancelled = True


@dataclass(slots=True)
class _Job:
    """One image; its content is dropped when it is decoded."""

    submission: Submission[Any]
    answer: Future[Any]
    source: ImageInput
    options: PredictOptions
    finish: Callable[[ImageInput, Prediction], Any]
    prepared: PreparedImage | None = None
    ready_at: float = 0.0  # monotonic seconds


class Batcher:
    """Predicts images of many callers in shared batches, with bounded memory.

    Args:
        predictor: of any kind; used by one thread.
        check: called with every image before it is decoded; raises ArtifactNetError to refuse it.
        max_batch: images that pass through the model together.
        wait: seconds for which a decoded image waits for others that are being decoded. It never
            waits where no other is on its way.
        capacity: images that may be in here, decoded or not.
        workers: threads that decode.
        report: called by the model's thread after every batch with its number of images and its
            seconds.
    """

    def __init__(
        self,
        predictor: BasePredictor,
        check: Callable[[ImageInput], None],
        *,
        max_batch: int,
        wait: float,
        capacity: int,
        workers: int,
        report: Callable[[int, float], None] | None = None,
    ) -> None:
        self._predictor, self._check, self._report = predictor, check, report
        self._max_batch, self._wait, self._capacity = max_batch, wait, capacity
        self._held = 0  # images in here
        self._preparing = 0  # of which these are not decoded yet
        self._ready: deque[_Job] = deque()
        self._closed = False
        self._seconds_per_image = 0.0
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(workers, "decode")
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def held(self) -> int:
        """Images that are in here."""
        return self._held

    @property
    def is_alive(self) -> bool:
        """Whether images are answered."""
        return self._thread.is_alive() and not self._closed

    def need_room(self, images: int = 1) -> None:
        """Raise `QueueFull` unless so many images would be taken now; nothing is reserved."""
        if self._held + images > self._capacity:
            raise QueueFull(self._held * self._seconds_per_image)

    def submit(
        self,
        images: Sequence[ImageInput],
        options: PredictOptions,
        finish: Callable[[ImageInput, Prediction], T],
    ) -> Submission[T]:
        """Take images, all of them or none; from any thread, at once.

        Args:
            images: with the content of their files.
            options: of `BasePredictor.options`.
            finish: makes of a prediction what the caller wants of it, in the model's thread, where
                the maps of one image are held at a time. It gets the input without its content.

        Raises:
            QueueFull: there is no room for them.
            RuntimeError: the batcher was closed.
        """
        submission: Submission[T] = Submission(len(images))
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher was closed")
            self.need_room(len(images))
            self._held += len(images)
            self._preparing += len(images)
        for source, answer in zip(images, submission.answers, strict=True):
            job = _Job(submission, answer, source, options, finish)
            self._pool.submit(self._prepare, job)
        return submission

    def close(self) -> None:
        """Answer what is in here, then end all threads."""
        self._pool.shutdown()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _prepare(self, job: _Job) -> None:
        source, job.source = job.source, replace(job.source, image=b"")
        try:
            if job.submission.cancelled:
                raise Cancelled
            self._check(source)
            prepared = self._predictor.prepare(0, source, job.options)
        except ArtifactNetError as error:
            reason = str(error).removeprefix(f"{source.name}: ")
            prepared = Failure(source.name, reason)
        except Exception as error:
            self._leave(job, error, prepared=False)
            return
        if isinstance(prepared, Failure):
            self._leave(job, prepared, prepared=False)
            return
        job.prepared, job.ready_at = prepared, time.monotonic()
        with self._changed:
            self._preparing -= 1
            self._ready.append(job)
            self._changed.notify_all()

    def _leave(self, job: _Job, answer: Any, prepared: bool = True) -> None:
        """Make room, then say the answer, so that whoever gets it may send the next image."""
        with self._changed:
            self._held -= 1
            if not prepared:
                self._preparing -= 1
                self._changed.notify_all()
        if isinstance(answer, Exception):
            job.answer.set_exception(answer)
        else:
            job.answer.set_result(answer)

    def _run(self) -> None:
        while batch := self._next_batch():
            started = time.perf_counter()
            wanted = [job for job in batch if not job.submission.cancelled]
            for job in batch:
                if job.submission.cancelled:
                    self._leave(job, Cancelled())
            for options in dict.fromkeys(job.options for job in wanted):
                self._answer([job for job in wanted if job.options == options], options)
            if wanted:
                self._note(len(wanted), time.perf_counter() - started)

    def _next_batch(self) -> list[_Job]:
        """The images that come next; empty when there will be no more."""
        with self._changed:
            while not self._ready and not self._closed:
                self._changed.wait()
            if not self._ready:
                return []
            until = self._ready[0].ready_at + self._wait
            while len(self._ready) < self._max_batch and self._preparing and not self._closed:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return [self._ready.popleft() for _ in range(min(self._max_batch, len(self._ready)))]

    def _answer(self, jobs: list[_Job], options: PredictOptions) -> None:
        waiting = deque(jobs)
        try:
            prepared = [job.prepared for job in jobs if job.prepared is not None]
            for answer in self._predictor.answer(prepared, options):
                job = waiting[0]
                done = answer if isinstance(answer, Failure) else job.finish(job.source, answer)
                waiting.popleft().prepared = None
                self._leave(job, done)
                del answer, done  # before the maps of the next image are made
            if waiting:
                raise RuntimeError(f"the model left out {len(waiting)} of {len(jobs)} images")
        except Exception as error:
            for job in waiting:
                if len(jobs) == 1:
                    self._leave(job, error)
                else:  # one image must not fail those that came with it
                    self._answer([job], options)

    def _note(self, images: int, seconds: float) -> None:
        each, mean = seconds / images, self._seconds_per_image
        self._seconds_per_image = mean + _RECENT * (each - mean) if mean else each
        if self._report is not None:
            self._report(images, seconds)
