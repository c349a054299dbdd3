"""What the runtimes of exported files share: the interface of an open file, and its errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from artifactnet.inference.backends.metadata import ExportFacts
from artifactnet.types import ArtifactNetError, Float32Array, UInt8Array


class Session(ABC):
    """An open exported file, which runs on the CPU.

    Subclasses take its path and the threads that one call uses (0 leaves it to the runtime), and
    raise ArtifactNetError if the file cannot be read or was not exported by ArtifactNet.

    Attributes:
        facts: the metadata of the file.
        shape: height and width of its input, pixels.
    """

    facts: ExportFacts
    shape: tuple[int, ...]

    @abstractmethod
    def run(self, frames: UInt8Array) -> list[Float32Array]:
        """Outputs, in the order of the facts, of (B, H, W, 3) uint8 frames."""


@contextmanager
def runtime_errors(message: str) -> Iterator[None]:
    """Turn whatever a runtime raises inside into one line about the file.

    The runtimes' own exceptions have no public common base.

    Raises:
        ArtifactNetError: ``message`` and the first line of the error.
    """
    try:
        yield
    except Exception as error:
        raise ArtifactNetError(f"{message}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """First line of an error that is not empty, else the name of its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
