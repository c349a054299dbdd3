"""Working ahead of a consumer with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def ahead(function: Callable[[S], T], items: Iterable[S], workers: int, depth: int) -> Iterator[T]:
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
