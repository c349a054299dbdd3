"""Warnings about single images: the first few in full, then only how many there were."""

from __future__ import annotations

import logging
import threading
from collections import Counter

logger = logging.getLogger(__name__)
SHOWN = 3  # of a kind and process
_counts: Counter[str] = Counter()
_lock = threading.Lock()


def notice(kind: str, line: str) -> None:
    """Log ``line``, one of possibly many of its kind.

    The first `SHOWN` of a kind are logged as they are, then the count at 10, 100, 1000, ...

    Args:
        kind: what happened, in the plural, to be read after a number: ``images were ...``.
        line: what happened to which file.
    """
    with _lock:
        _counts[kind] += 1
        count = _counts[kind]
    if count <= SHOWN:
        more = " (others like it are counted, not listed)" if count == SHOWN else ""
        logger.warning("%s%s", line, more)
    elif str(count).strip("0") == "1":
        logger.warning("%d %s so far", count, kind)


def count(kind: str) -> int:
    """How many notices of a kind there were in this process."""
    with _lock:
        return _counts[kind]
