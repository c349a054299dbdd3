"""What the runtimes of exported files share: the interface of an open file, and its errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from artifactnet.inference.backends.metadata import ExportFacts
from artifactnet.types import ArtifactNetError, Float32Array, UInt8Array


class Session(ABC):
    """An open exported file, which runs on the CPU.

    Subclasses take its path and the number of threads (0 leaves it to the runtime), and raise
    ArtifactNetError if the file cannot be read or was not exported by ArtifactNet.

    Attributes:
        facts: the metadata of the file.
        shape: height and width of its input, pixels.
    """

    facts: ExportFacts
    shape: tuple[int, ...]

    @abstractmethod
    def run(self, frames: UInt8Array) -> list[Float32Array]:
        """Outputs, in the order of the facts, of (B, H, W, 3) uint8 frames."""


def import_runtime(name: str, need: str, pip: str) -> ModuleType:
    """The package of a runtime; ArtifactNetError ("NEED: PIP") if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ArtifactNetError(f"{need}: {pip}") from error


@contextmanager
def runtime_errors(message: str) -> Iterator[None]:
    """Turn any exception inside into ArtifactNetError: ``message`` and the error's first line.

    The runtimes' own exceptions have no public common base.
    """
    try:
        yield
    except Exception as error:
        raise ArtifactNetError(f"{message}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """First line of an error that is not empty, else the name of its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
