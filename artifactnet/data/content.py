"""Finding files of identical content while opening as few of them as possible."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import TypeVar

_PROBE = 4096  # bytes read from the middle of a file; headers and tails are often alike
_Key = TypeVar("_Key", bound=Hashable)


def digest(data: bytes) -> bytes:
    """Fingerprint of some content (128-bit BLAKE2b)."""
    return blake2b(data, digest_size=16).digest()


def identical(paths: Sequence[str], groups: Sequence[Hashable] | None = None) -> list[list[int]]:
    """Sets of files with the same content.

    Sizes are compared first; of equal sizes 4 KB from the middle; only files that agree in
    both are read in full.

    Args:
        paths: files.
        groups: one per file; only sets that span at least two groups matter, and files that
            cannot be in one are never opened. None: every set matters.

    Returns:
        ascending indices of each set of two or more, ordered by their first index. A file that
        cannot be read equals no other: whoever loads it will report it.
    """

    def matters(indices: list[int]) -> bool:
        return len(indices) > 1 and (groups is None or len({groups[k] for k in indices}) > 1)

    def refine(sets: list[list[int]], key: Callable[[str], _Key]) -> list[list[int]]:
        result = []
        for indices in sets:
            buckets: dict[_Key, list[int]] = defaultdict(list)
            for index in indices:
                with suppress(OSError):
                    buckets[key(paths[index])].append(index)
            result += [bucket for bucket in buckets.values() if matters(bucket)]
        return result

    sets = refine([list(range(len(paths)))], os.path.getsize)
    return sorted(refine(refine(sets, _middle), _whole))


def _middle(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        file.seek(max(0, (os.fstat(file.fileno()).st_size - _PROBE) // 2))
        return digest(file.read(_PROBE))


def _whole(path: str) -> bytes:
    if os.path.getsize(path) <= _PROBE:
        return b""  # `_middle` has already seen all of it
    hasher = blake2b(digest_size=16)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return hasher.digest()
