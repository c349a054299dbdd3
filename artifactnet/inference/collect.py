"""What the inputs of a command stand for: files, folders, patterns and shards, in a fixed order."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactnet.data.images import EXTENSIONS
from artifactnet.data.shards import RowLocation, ShardReader, read_rows
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.types import ArtifactNetError

SHARD_SUFFIX = ".parquet"
MAX_NAME = 200  # bytes of a generator or uid; file systems end at 255
_COLUMNS = ("generator", "uid")


def iterate_shard(shard: str) -> Iterator[ImageInput | Failure]:
    """Images of a parquet file in the X-AIGD schema; one row group is in memory at a time.

    Yields:
        An input named ``shard#row`` per row, or why there is none; a failure named after the
        shard where it cannot be read any further.
    """
    reader, place = ShardReader(), None
    try:
        for place, row in read_rows(Path(shard), _COLUMNS):
            yield _source(reader, place, row, f"{shard}#{place.number}")
    except ArtifactNetError as error:
        yield Failure(shard, str(error).removeprefix(f"{Path(shard)}: "))
        return
    if place is None:
        yield Failure(shard, "the shard has no rows")


def _source(
    reader: ShardReader, place: RowLocation, row: dict[str, Any], name: str
) -> ImageInput | Failure:
    for column in _COLUMNS:
        problem = unsafe_name(row[column])
        if problem is not None:
            return Failure(name, f"{column} {row[column]!r:.80} {problem}")
    try:
        content, _ = reader.read(place)
    except ArtifactNetError as error:
        return Failure(name, str(error).removeprefix(f"{place}: "))
    return ImageInput(name, content, row["generator"], row["uid"])


def unsafe_name(name: object) -> str | None:
    """Why a name cannot name a folder of the predictions; None if it can.

    Names come from untrusted data: a separator or ``..`` would let them write anywhere.
    """
    if not isinstance(name, str):
        return "is not text"
    if not name.strip():
        return "is empty"
    if name in (".", "..") or any(c in "/\\" or not c.isprintable() for c in name):
        return "cannot name a folder"
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME:
        return f"is longer than {MAX_NAME} bytes"
    return None


@dataclass(frozen=True, slots=True)
class ResolvedInputs:
    """What the inputs stand for.

    Attributes:
        roots: files and folders, patterns resolved, in the order given.
        base: folder that holds all of them; predictions are named by the path below it.
        skip: folder not to look into: that of the predictions, which may lie among the images.
        failures: inputs that stand for nothing.
    """

    roots: tuple[str, ...]
    base: str
    skip: str
    failures: tuple[Failure, ...]


def resolve_inputs(inputs: Sequence[str | Path], skip: str | Path) -> ResolvedInputs:
    """Resolve files, folders and glob patterns (``**`` searches deeply).

    A name that exists is not a pattern. A file named outright is tried whatever its suffix;
    inside a folder the suffix decides what is an image.
    """
    roots: list[str] = []
    failures: list[Failure] = []
    skip = os.path.abspath(skip)
    for entry in map(str, inputs):
        matches = [entry] if os.path.lexists(entry) else sorted(glob.glob(entry, recursive=True))
        if not matches:
            failures.append(Failure(entry, "no such file or folder"))
        for match in matches:
            if os.path.isdir(match) and next(_files(match, skip), None) is None:
                failures.append(Failure(match, "no images in this folder"))
            else:
                roots.append(match)
    homes = [root if os.path.isdir(root) else os.path.dirname(root) for root in roots]
    base = os.path.commonpath([os.path.abspath(home) for home in homes]) if homes else ""
    return ResolvedInputs(tuple(roots), base, skip, tuple(failures))


def iterate_images(inputs: ResolvedInputs) -> Iterator[ImageInput | Failure]:
    """Every image once, in a fixed order, written as the user wrote its file or folder.

    A parquet shard named outright, or by a pattern, stands for its rows. A file's generator is
    the name of its folder and its uid the name without suffix, as in the benchmark's layouts.
    """
    seen: set[str] = set()
    for root in inputs.roots:
        for path in _files(root, inputs.skip) if os.path.isdir(root) else (root,):
            key = os.path.abspath(path)
            if key not in seen:
                seen.add(key)
                if path.lower().endswith(SHARD_SUFFIX):
                    yield from iterate_shard(path)
                else:
                    folder, name = os.path.split(key)
                    uid = os.path.splitext(name)[0]
                    yield ImageInput(path, path, os.path.basename(folder) or None, uid)


def answer_name(path: str, inputs: ResolvedInputs) -> str:
    """Name of an image below the common folder, with forward slashes; unique per image."""
    return Path(os.path.relpath(os.path.abspath(path), inputs.base)).as_posix()


def _files(folder: str, skip: str) -> Iterator[str]:
    closed: list[str] = []
    for here, folders, files in os.walk(folder, onerror=lambda e: closed.append(e.filename)):
        folders[:] = sorted(
            name for name in folders if os.path.abspath(os.path.join(here, name)) != skip
        )
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in EXTENSIONS:
                yield os.path.join(here, name)
    yield from closed  # folders that may not be read: they fail as images and are listed


def sample_evenly(inputs: ResolvedInputs, count: int) -> Iterator[ImageInput | Failure]:
    """At most ``count`` (>= 1) images, evenly spread, in order, with every failure in between.

    The inputs are walked twice, first to count, so that no image waits in memory.
    """
    total = sum(isinstance(item, ImageInput) for item in iterate_images(inputs))
    size = min(count, total)
    chosen = {k * total // size for k in range(size)}
    number = 0
    for item in iterate_images(inputs):
        if isinstance(item, Failure) or number in chosen:
            yield item
        number += isinstance(item, ImageInput)
