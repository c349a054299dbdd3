"""Threads that work ahead of a consumer or behind a producer, with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar, cast

S = TypeVar("S")
T = TypeVar("T")
_POLL = 0.1  # seconds until a thread notices that nobody waits for it any more


def prefetch(
    function: Callable[[S], T], items: Iterable[S], workers: int, depth: int
) -> Iterator[T]:
    """``map(function, items)`` in order, computed by threads ahead of the consumer.

    Args:
        function: called once per item; its exceptions reach the consumer.
        items: read lazily.
        workers: threads; 0 computes in the consumer's own thread, on demand.
        depth: results that may wait for the consumer.
    """
    if workers == 0:
        yield from map(function, items)
        return
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def read_ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items, which a thread takes from their source ahead of the consumer.

    Args:
        items: taken by one thread alone; its exceptions reach the consumer.
        depth: items that may wait for the consumer.
    """
    waiting: Queue[tuple[T | None, BaseException | None, bool]] = Queue(max(1, depth))
    stopped = Event()

    def put(item: T | None, error: BaseException | None, last: bool) -> None:
        while not stopped.is_set():
            try:
                waiting.put((item, error, last), timeout=_POLL)
            except Full:
                continue
            return

    def fill() -> None:
        try:
            for item in items:
                put(item, None, False)
                if stopped.is_set():
                    return
        except BaseException as error:
            put(None, error, True)
        else:
            put(None, None, True)

    thread = Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = waiting.get()
            if error is not None:
                raise error
            if last:
                return
            yield cast(T, item)
            del item  # the consumer alone keeps it
    finally:
        stopped.set()
        thread.join()


class BackgroundWorker:
    """Runs a producer's tasks in threads, so that the producer rarely waits.

    Leaving the ``with`` block waits for all tasks, also after Ctrl-C; after an error only for those
    that began.

    Args:
        workers: threads; 0 runs a task at once in the producer's own thread.
        depth: tasks that may wait, 1 or more; beyond it the producer waits for the first.
    """

    def __init__(self, workers: int, depth: int) -> None:
        self._pool = ThreadPoolExecutor(workers) if workers else None
        self._depth = depth
        self._pending: deque[Future[None]] = deque()

    def do(self, work: Callable[[], None]) -> None:
        """Run a task now or later; raises what this or an earlier task raised."""
        if self._pool is None:
            work()
            return
        self._pending.append(self._pool.submit(work))
        while self._pending and (self._pending[0].done() or len(self._pending) > self._depth):
            self._pending.popleft().result()

    def __enter__(self) -> BackgroundWorker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is None:
            return
        try:
            while kind is None and self._pending:
                self._pending.popleft().result()
        finally:
            failed = kind is not None and not issubclass(kind, KeyboardInterrupt)
            self._pool.shutdown(cancel_futures=failed)
