"""Many things asked about by several threads, and all of them stopped when one finds no sense."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from artifactnet.mllm.chat import EndpointError
from artifactnet.mllm.pace import Pace, Stopped
from artifactnet.types import ArtifactNetError

Item = TypeVar("Item")
Result = TypeVar("Result")


def work_through(
    items: Sequence[Item],
    work: Callable[[Item], Result],
    finished: Callable[[Item, Result | ArtifactNetError], None],
    workers: int,
    paces: Iterable[Pace],
) -> None:
    """Do work on all items, some at a time.

    Args:
        items: what to work on.
        work: done in a thread.
        finished: told of each item in their order, in the calling thread: its result, or the error
            that it alone has. What this raises ends the work.
        workers: threads.
        paces: those that the work asks for turns. Where it ends early, an interrupt included, they
            are stopped, so that waiting threads raise `Stopped`, until all threads have ended;
            what was already sent is waited for.

    Raises:
        EndpointError: no request can succeed.
        Stopped: somebody else stopped a pace.
        OSError: the disk is full, or the like.
    """
    shared = list(paces)

    def stop() -> None:
        for pace in shared:
            pace.stop()

    def guarded(item: Item) -> Result:
        try:
            return work(item)
        except BaseException as error:
            if _ends_all(error):
                stop()  # here already: until the caller looks, other threads would go on asking
            raise

    try:
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(guarded, item) for item in items]
            try:
                _pass_on(items, futures, finished)
            except BaseException as error:
                stop()
                pool.shutdown(wait=True, cancel_futures=True)
                cause = next(filter(None, map(_cause, futures)), None)
                if isinstance(error, Stopped) and cause is not None:
                    raise cause from None
                raise
    finally:
        for pace in shared:
            pace.resume()  # the stop was for these threads, which have ended


def _pass_on(
    items: Sequence[Item],
    futures: Sequence[Future[Result]],
    finished: Callable[[Item, Result | ArtifactNetError], None],
) -> None:
    """Tell of each item what came of it, until something ends all work."""
    for item, future in zip(items, futures, strict=True):
        try:
            outcome: Result | ArtifactNetError = future.result()
        except ArtifactNetError as error:
            if _ends_all(error):
                raise
            outcome = error
        finished(item, outcome)


def _ends_all(error: BaseException) -> bool:
    """Whether an error is not that of its item alone: a full disk, a wrong key."""
    return not isinstance(error, ArtifactNetError) or isinstance(error, (EndpointError, Stopped))


def _cause(future: Future[Result]) -> BaseException | None:
    """Why a future that has ended ended all work, if it did."""
    error = None if future.cancelled() else future.exception()
    return error if error and _ends_all(error) and not isinstance(error, Stopped) else None
