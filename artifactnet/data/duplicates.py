"""Images that two splits share: an evaluation on what was trained on proves nothing."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from hashlib import blake2b

from artifactnet.data.sources.base import Source, Splits
from artifactnet.data.splits import Subset
from artifactnet.files import sha256_file
from artifactnet.types import ArtifactNetError

MAX_ENCODED = 20_000  # images without a file of their own whose content is compared
_PROBE = 4096  # bytes read from the middle of a file; headers and tails are often alike
Image = tuple[str, int]  # split, index


def hash_bytes(data: bytes) -> bytes:
    """128-bit BLAKE2b of content in memory; `artifactnet.files.sha256_file` hashes whole files."""
    return blake2b(data, digest_size=16).digest()


def find_identical_files(
    paths: Sequence[str], groups: Sequence[Hashable] | None = None
) -> list[list[int]]:
    """Sets of files with the same content: ascending indices, ordered by their first one.

    Sizes are compared first; of equal sizes 4 KB from the middle; only files that agree in both are
    read in full. With ``groups``, one per file, only sets that span two groups count, and other
    files are never opened. A file that cannot be read equals no other: loading it reports the
    error.
    """

    def middle(path: str) -> bytes:
        with open(path, "rb", buffering=0) as file:
            file.seek(max(0, (os.fstat(file.fileno()).st_size - _PROBE) // 2))
            return hash_bytes(file.read(_PROBE))

    def whole(path: str) -> str:  # `middle` has already seen all of a small file
        return "" if os.path.getsize(path) <= _PROBE else sha256_file(path)

    sets = [list(range(len(paths)))]
    for key in (os.path.getsize, middle, whole):
        refined = []
        for indices in sets:
            buckets: dict[Hashable, list[int]] = defaultdict(list)
            for index in indices:
                with suppress(OSError):
                    buckets[key(paths[index])].append(index)
            for same in buckets.values():
                if len(same) > 1 and (groups is None or len({groups[k] for k in same}) > 1):
                    refined.append(same)
        sets = refined
    return sorted(sets)


def find_duplicates(splits: Splits) -> tuple[list[tuple[Image, Image]], int]:
    """Images of one split that a later one (train, val, test) holds too, byte by byte.

    Returns:
        pairs of ((split, index), (later split, index)), one per image of an earlier split; and how
        many images were not compared, since they lie inside shards and are too many.
    """
    files: list[Image] = []
    others: list[Image] = []
    for name, source in splits.items():
        for index, record in enumerate(source.records):
            (others if record.path is None else files).append((name, index))
    paths = [str(splits[name].records[index].path) for name, index in files]
    sets = [
        [files[k] for k in same]
        for same in find_identical_files(paths, [name for name, _ in files])
    ]
    if len(others) <= MAX_ENCODED:
        buckets: dict[bytes, list[Image]] = defaultdict(list)
        for name, index in others:
            # An unreadable image equals no other: loading it reports the error.
            with suppress(ArtifactNetError):
                content = content_of(splits[name], index)
                if isinstance(content, bytes):
                    buckets[hash_bytes(content)].append((name, index))
        sets += [same for same in buckets.values() if len({name for name, _ in same}) > 1]
    order = ("train", "val", "test")
    pairs = []
    for same in sets:
        last = max(same, key=lambda image: order.index(image[0]))
        pairs += [(image, last) for image in same if image[0] != last[0]]
    return pairs, len(others) if len(others) > MAX_ENCODED else 0


def drop_duplicates(splits: Splits) -> tuple[Splits, list[str]]:
    """Leave out images that a later split holds too (train yields to val, both to test).

    Also returns one line per image left out.
    """
    pairs, _ = find_duplicates(splits)
    dropped: dict[str, set[int]] = defaultdict(set)
    lines = []
    for (name, index), (other, twin) in pairs:
        dropped[name].add(index)
        here = splits[name].records[index].location
        lines.append(f"{here} ({name}): same image as {splits[other].records[twin].location}")
    result: Splits = dict(splits)
    for name, indices in dropped.items():
        keep = [k for k in range(len(splits[name].records)) if k not in indices]
        result[name] = Subset(splits[name], keep)
    return result, lines


def describe_duplicates(splits: Splits, pairs: list[tuple[Image, Image]]) -> str:
    """One line about what `find_duplicates` found: an example, and what to do."""
    (name, index), (other, twin) = pairs[0]
    return (
        f"{len(pairs)} images of one split are in another too, e.g. "
        f"{splits[name].records[index].location} ({name}) = "
        f"{splits[other].records[twin].location} ({other}); remove one of each, or set "
        "data.on_error=skip to leave the earlier split's copies out"
    )


def content_of(source: Source, index: int) -> bytes | str | None:
    """Path of an image's file; else its content, of a source with ``encoded(index)``; else None.

    Raises:
        ArtifactNetError: the source cannot read it.
    """
    path = source.records[index].path
    if path is not None:
        return path
    encoded: Callable[[int], bytes | None] | None = getattr(source, "encoded", None)
    return None if encoded is None else encoded(index)
