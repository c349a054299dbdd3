"""Working ahead of a consumer, and behind a producer, with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def prefetch(
    function: Callable[[S], T], items: Iterable[S], workers: int, depth: int
) -> Iterator[T]:
    """``map(function, items)`` in order, computed by threads ahead of the consumer.

    Args:
        function: called once per item; its exceptions reach the consumer.
        items: read lazily.
        workers: threads; 0 computes in the consumer's own thread, when asked.
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


class BackgroundWorker:
    """Work that follows a producer, done by threads that it rarely waits for.

    Leaving the ``with`` block waits for what is left; after an error only for what has begun.

    Args:
        workers: threads; 0 works in the producer's own thread, at once.
        depth: pieces of work that may wait, 1 or more; then the producer waits for the first.
    """

    def __init__(self, workers: int, depth: int) -> None:
        self._pool = ThreadPoolExecutor(workers) if workers else None
        self._depth = depth
        self._pending: deque[Future[None]] = deque()

    def do(self, work: Callable[[], None]) -> None:
        """Do it, now or later; raises what this or an earlier piece of work raised."""
        if self._pool is None:
            work()
            return
        self._pending.append(self._pool.submit(work))
        while self._pending and (self._pending[0].done() or len(self._pending) > self._depth):
            self._pending.popleft().result()

    def __enter__(self) -> BackgroundWorker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is None:
            return
        try:
            while error is None and self._pending:
                self._pending.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)
