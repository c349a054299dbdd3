"""A request that is refused, and an image that is not."""

from __future__ import annotations

from dataclasses import dataclass


class Refused(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        detail: what is wrong and what to do, in one line.
        retry_after: seconds after which the same request may be taken; None: it will not be.
    """

    def __init__(self, status: int, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry_after = status, detail, retry_after


@dataclass(frozen=True, slots=True)
class Upload:
    """An image that a client sent.

    Attributes:
        name: as the client calls it, of any form; it is repeated in the answer and used for
            nothing else. Empty: it has none.
        content: of the file.
    """

    name: str
    content: bytes
