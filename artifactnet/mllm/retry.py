"""When a failed request is worth repeating, and after how long."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Protocol

LONGEST_WAIT = 600.0  # seconds; whoever asks for more is asked another day
_FIRST = 1.0  # seconds
_LONGEST_BACKOFF = 60.0
_TRANSIENT = (408, 409, 425, 429)


class Response(Protocol):
    """What is needed of an HTTP response."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in any case to values."""


def is_transient(status: int, code: str | None) -> bool:
    """Whether the same request may succeed later.

    Args:
        status: of HTTP.
        code: the server's own word for the error, where it has one; an account without credit
            says 429 like one that asks too fast, but no waiting helps.
    """
    if code == "insufficient_quota":
        return False
    return status in _TRANSIENT or status >= 500


def backoff(attempt: int, share: float) -> float:
    """Seconds to wait after a failure: doubled each time, with jitter so that threads spread.

    Args:
        attempt: 0 after the first failure.
        share: random number in [0, 1].

    Returns:
        between half of the full pause and all of it; the full pause is 1, 2, 4, ... up to 60.
    """
    full = min(_LONGEST_BACKOFF, _FIRST * 2.0 ** min(attempt, 30))
    return full * (0.5 + 0.5 * share)


def pause_asked_for(response: Response, now: float | None = None) -> float | None:
    """Seconds that a ``Retry-After`` header asks to wait.

    Args:
        response: with its headers.
        now: seconds since 1970, for the header's other form, a date; the clock's by default.

    Returns:
        0 or more; None without header, or with one that cannot be read.
    """
    text = response.headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
            seconds = date.timestamp() - (time.time() if now is None else now)
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None  # not NaN
