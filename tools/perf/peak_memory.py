"""How much memory a piece of work takes at its peak, and what happens where there is too little."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from artifactnet.models.attention.requirements import free_memory
from artifactnet.types import ArtifactNetError

MEGABYTE = 2**20
_STATUS = Path("/proc/self/status")

# what torch and its libraries say where they do not raise OutOfMemoryError
_COMPLAINTS = ("can't allocate memory", "not enough memory", "bad_alloc", "out of memory")


def fresh_peak(run: Callable[..., object], *arguments: Any) -> int | None:
    """Largest resident memory of a new process that does one thing, bytes.

    Args:
        run: a function of a module, since the process has to import it.
        arguments: for it; they must pickle.

    Returns:
        The peak, Python and torch included; None if memory ran out.

    Raises:
        ArtifactNetError: what ``run`` raised, or the process ended in another way.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measure, args=(queue, run, arguments))
    process.start()
    process.join()
    if process.exitcode == -signal.SIGKILL:  # by the system, to save the others
        return None
    if process.exitcode:
        raise ArtifactNetError(
            f"a process that measures memory ended with exit code {process.exitcode}; its own "
            "message is above"
        )
    peak, error = queue.get()
    if error is not None:
        raise ArtifactNetError(error)
    return None if peak is None else int(peak)


def _measure(queue: Any, run: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    peak, message = None, None
    try:
        with limited_memory():
            run(*arguments)
        peak = resident_peak()
    except ArtifactNetError as error:
        message = str(error)
    except Exception as error:
        if not out_of_memory(error):
            raise
    queue.put((peak, message))


def resident_peak() -> int:
    """Largest resident memory of this process so far, bytes."""
    try:
        return _status("VmHWM")
    except OSError:  # not Linux, where `getrusage` would count the process that started this one
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def cuda_peak(run: Callable[[], object]) -> int | None:
    """Largest memory that torch holds on the GPU while ``run`` runs, bytes; None if it ran out."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        run()
        torch.cuda.synchronize()
    except Exception as error:
        if not out_of_memory(error):
            raise
        return None
    return torch.cuda.max_memory_allocated()


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _COMPLAINTS)


@contextmanager
def limited_memory() -> Iterator[None]:
    """Let this process have no more memory than is there, so that it gets an exception.

    Without a limit the system kills it, or another, once memory is used up. Linux alone; nothing
    happens elsewhere.
    """
    free = free_memory(torch.device("cpu"))
    if free is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _status("VmData") + free
    for bound in (soft, hard):
        limit = limit if bound == resource.RLIM_INFINITY else min(limit, bound)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _status(key: str) -> int:
    """A line of this process's status on Linux, bytes."""
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return int(dict(line.split(":", 1) for line in lines)[key].split()[0]) * 1024
