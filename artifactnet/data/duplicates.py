"""Images of the same content in two splits, or under two labels.

An evaluation on what was trained on proves nothing, and one of two labels is wrong.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from artifactnet.data.sources.base import Source, Splits
from artifactnet.data.splits import Subset
from artifactnet.files import sha256_file
from artifactnet.types import ArtifactNetError

MAX_ENCODED = 20_000  # images without a file of their own whose content is compared
_NAMED = 10  # examples in an error
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

    Raises:
        ArtifactNetError: one content has two labels, in one split or in two; names both places.
    """
    files, others = _by_storage(splits)
    compared = others if len(others) <= MAX_ENCODED else []
    sets = _identical_images(splits, files, compared)
    _refuse_two_labels(splits, sets)
    order = ("train", "val", "test")
    pairs = []
    for same in sets:
        last = max(same, key=lambda image: order.index(image[0]))
        pairs += [(image, last) for image in same if image[0] != last[0]]
    return pairs, len(others) if len(others) > MAX_ENCODED else 0


def find_shared(source: Source, others: Sequence[Source]) -> dict[int, str]:
    """Images that one of ``others`` holds too, byte by byte: index -> location of its twin there.

    However many images lie in shards, and whatever their labels are. An unreadable image equals no
    other.
    """
    splits = {"": source, **{f"{number}": other for number, other in enumerate(others)}}
    shared = {}
    for same in _identical_images(splits, *_by_storage(splits)):
        twin = next((image for image in same if image[0]), None)
        if twin is not None:
            where = splits[twin[0]].records[twin[1]].location
            shared.update({index: where for name, index in same if not name})
    return dict(sorted(shared.items()))


def _by_storage(splits: Splits) -> tuple[list[Image], list[Image]]:
    """Images with a file of their own, and all others."""
    files: list[Image] = []
    others: list[Image] = []
    for name, source in splits.items():
        for index, record in enumerate(source.records):
            (others if record.path is None else files).append((name, index))
    return files, others


def _identical_images(splits: Splits, files: list[Image], others: list[Image]) -> list[list[Image]]:
    """Sets of images of the same content that span two splits or two labels.

    ``files`` have a path; the content of ``others`` is read. An unreadable image equals no other:
    loading it reports the error.
    """

    def group(image: Image) -> tuple[str, int]:
        return image[0], splits[image[0]].records[image[1]].label

    paths = [str(splits[name].records[index].path) for name, index in files]
    sets = [
        [files[k] for k in same]
        for same in find_identical_files(paths, [group(image) for image in files])
    ]
    encoded: dict[bytes, list[Image]] = defaultdict(list)
    sizes = set()
    for name, index in others:
        with suppress(ArtifactNetError):
            content = content_of(splits[name], index)
            if isinstance(content, bytes):
                sizes.add(len(content))
                encoded[hash_bytes(content)].append((name, index))
    for image, path in zip(files, paths, strict=True) if sizes else ():
        with suppress(OSError):
            if os.path.getsize(path) in sizes:
                same = encoded.get(hash_bytes(Path(path).read_bytes()))
                if same is not None:
                    same.append(image)
    return sets + [same for same in encoded.values() if len(set(map(group, same))) > 1]


def _refuse_two_labels(splits: Splits, sets: list[list[Image]]) -> None:
    conflicts = []
    for same in sets:
        first: dict[int, str] = {}
        for name, index in same:
            record = splits[name].records[index]
            label = "fake" if record.label else "real"
            first.setdefault(record.label, f"{record.location} ({label}, {name})")
        if len(first) > 1:
            conflicts.append(f"{first[0]} = {first[1]}")
    if conflicts:
        more = "; ..." if len(conflicts) > _NAMED else ""
        images = "1 image has" if len(conflicts) == 1 else f"{len(conflicts)} images have"
        raise ArtifactNetError(
            f"{images} two labels, real and fake, for the same content: "
            f"{'; '.join(conflicts[:_NAMED])}{more}; remove the wrong one"
        )


def drop_duplicates(splits: Splits) -> tuple[Splits, list[str]]:
    """Leave out images that a later split holds too (train yields to val, both to test).

    Also returns one line per image left out. Raises as `find_duplicates`.
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
