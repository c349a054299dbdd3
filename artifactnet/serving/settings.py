"""What a server allows: sizes, times and numbers, all of them bounded."""

from __future__ import annotations

import os
from dataclasses import dataclass

from artifactnet.types import ArtifactNetError

API_KEY_VARIABLE = "ARTIFACTNET_API_KEY"
_MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The limits of a server; all are checked when one is made.

    Attributes:
        max_batch: images that pass through the model together at most; None: as the predictor
            has it.
        batch_wait: seconds that an image may wait for others that are being decoded.
        queue: images that may be in the server, decoded or not; more are refused.
        workers: threads that decode; None: one per processor core, at most four.
        max_images: of one request.
        max_bytes: of the body of one request.
        max_pixels: of one image, as its header announces them.
        max_buffered: bytes of all requests together that are held at a time.
        max_connections: open connections beyond which requests are refused.
        timeout: seconds in which a client must have sent the head of its request, then the body,
            in which it is answered then, and takes the answer.
        drain: seconds for which a server that was told to stop goes on, while ``/readyz`` says
            that it will.
        access_log: log a line per request: address of the client, path, status.

    Raises:
        ArtifactNetError: a number is out of range, or two contradict each other.
    """

    max_batch: int | None = None
    batch_wait: float = 0.005
    queue: int = 64
    workers: int | None = None
    max_images: int = 16
    max_bytes: int = 32 * _MEBIBYTE
    max_pixels: int = 40_000_000
    max_buffered: int = 256 * _MEBIBYTE
    max_connections: int = 1000
    timeout: float = 30.0
    drain: float = 0.0
    access_log: bool = False

    def __post_init__(self) -> None:
        least = {
            "max_batch": 1,
            "queue": 1,
            "workers": 1,
            "max_images": 1,
            "max_bytes": 1024,
            "max_pixels": 1,
            "max_connections": 1,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ArtifactNetError(f"{_flag(name)} must be {bound} or more, not {value}")
        for name in ("batch_wait", "drain"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ArtifactNetError(f"{_flag(name)} must be 0 or more")
        if not 0 < self.timeout < float("inf"):
            raise ArtifactNetError(f"--timeout must be above 0, not {self.timeout:g}")
        if self.max_images > self.queue:
            raise ArtifactNetError(
                f"--max-images {self.max_images} is above --queue {self.queue}: such a request "
                "would never be taken"
            )
        if self.max_bytes > self.max_buffered:
            raise ArtifactNetError(
                f"--max-bytes {self.max_bytes} is above --max-buffered {self.max_buffered}: such "
                "a request would never be taken"
            )

    @property
    def decoders(self) -> int:
        """Threads that decode."""
        return self.workers or min(4, os.cpu_count() or 1)


def read_api_key() -> str | None:
    """The key that clients must send, from the environment; None: none is needed.

    Raises:
        ArtifactNetError: the variable is empty, or holds what no header can.
    """
    key = os.environ.get(API_KEY_VARIABLE)
    if key is None:
        return None
    if not key or not all("!" <= letter <= "~" for letter in key):
        raise ArtifactNetError(
            f"{API_KEY_VARIABLE} must be printable ASCII without spaces and not empty; unset it to "
            "serve without a key"
        )
    return key


def _flag(name: str) -> str:
    return "--batch-wait-ms" if name == "batch_wait" else f"--{name.replace('_', '-')}"
