"""What the inputs of a command stand for: files, folders, patterns and shards, in a fixed order."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

from artifactnet.data.image_files import FileWalk, Skipped
from artifactnet.data.shards import (
    OpenParquet,
    RowLocation,
    ShardReader,
    open_parquet,
    read_rows,
)
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.inference.urls import fetch_image, is_url
from artifactnet.names import NAME_BYTES, PATH_BYTES, file_path, name_limits, unsafe_name
from artifactnet.types import ArtifactNetError

SHARD_SUFFIX = ".parquet"
STDIN = "-"  # as an input: one image on standard input
Urls: TypeAlias = Literal["none", "public", "private"]  # which ones are fetched
_COLUMNS = ("generator", "uid")


def iterate_shard(
    shard: str, groups: Container[int] | None = None, open_file: OpenParquet = open_parquet
) -> Iterator[ImageInput | Failure]:
    """Images of a parquet file with a column ``image``; one row group is in memory at a time.

    Generator and uid are those of the columns, as X-AIGD has them. Where there is no such column,
    or it holds null, they are the shard's name without suffix and the number of the row.

    Args:
        shard: its path, or what ``open_file`` knows it by.
        groups: row groups to read; None: all.
        open_file: see `artifactnet.data.shards.OpenParquet`.

    Yields:
        An input named ``shard#row`` per row, or why there is none; a failure named after the
        shard where it cannot be read any further.
    """
    reader, place = ShardReader(open_file=open_file), None
    try:
        columns = shard_columns(shard, open_file)
        for place, row in read_rows(shard, columns, groups=groups, open_file=open_file):
            yield _source(reader, place, row, f"{shard}#{place.number}")
    except ArtifactNetError as error:
        yield Failure(shard, str(error).removeprefix(f"{shard}: "))
        return
    if place is None:
        yield Failure(shard, "the shard has no rows")


def shard_columns(shard: str, open_file: OpenParquet = open_parquet) -> list[str]:
    """Which columns with names of images a shard has; pictures alone have none.

    Raises:
        ArtifactNetError: it cannot be read as parquet.
    """
    present = open_file(shard, ()).schema_arrow.names
    return [column for column in _COLUMNS if column in present]


def _source(
    reader: ShardReader, place: RowLocation, row: dict[str, Any], name: str
) -> ImageInput | Failure:
    names = {"generator": Path(place.shard).stem, "uid": str(place.number)}
    names |= {column: value for column, value in row.items() if value is not None}
    for column, value in names.items():
        problem = unsafe_name(value)
        if problem is not None:
            return Failure(name, f"{column} {value!r:.80} {problem}")
    try:
        content, _ = reader.read(place)
    except ArtifactNetError as error:
        return Failure(name, str(error).removeprefix(f"{place}: "))
    return ImageInput(name, content, names["generator"], names["uid"])


@dataclass(frozen=True, slots=True)
class ResolvedInputs:
    """What the inputs stand for.

    Attributes:
        roots: files and folders, patterns resolved, in the order given.
        base: folder that holds all of them; predictions are named by the path below it.
        skip: folder not to look into: that of the predictions, which may lie among the images.
        failures: inputs that stand for nothing.
        limits: of the names of predictions, see `artifactnet.names.name_limits`.
        stdin: content of the image that the root ``-`` stands for.
        private: URLs may lead to this machine and to private networks.
    """

    roots: tuple[str, ...]
    base: str
    skip: str
    failures: tuple[Failure, ...]
    limits: tuple[int, int] = (NAME_BYTES, PATH_BYTES)
    stdin: bytes = b""
    private: bool = False


def resolve_inputs(
    inputs: Sequence[str | Path], skip: str | Path, urls: Urls = "none"
) -> ResolvedInputs:
    """Resolve files, folders and glob patterns (``**`` searches deeply).

    ``-`` is one image, read from standard input at once; a file of that name is ``./-``. A name
    that exists is not a pattern. A file named outright, or by a pattern, is tried whatever
    it holds; inside a folder the content decides what is an image (`artifactnet.data.image_files`).
    A URL is an image on the web with ``urls`` ``public``, which `artifactnet.inference.urls`
    fetches, or ``private``, which allows private networks too.
    """
    roots: list[str] = []
    failures: list[Failure] = []
    skip = os.path.abspath(skip) if str(skip) else ""
    stdin = b""
    for entry in map(str, inputs):
        if entry == STDIN:
            if STDIN not in roots:
                roots.append(STDIN)
                stdin = _read_stdin()
            continue
        if is_url(entry) and not os.path.lexists(entry):
            if urls == "none":
                failures.append(Failure(entry, "a URL, which only `predict --allow-urls` fetches"))
            elif entry not in roots:
                roots.append(entry)
            continue
        matches = [entry] if os.path.lexists(entry) else sorted(set(_expand(entry)))
        if not matches:
            failures.append(Failure(entry, "no such file or folder"))
        for match in matches:
            skipped = Skipped()
            if os.path.isdir(match) and next(_folder(match, FileWalk(skip), skipped), None) is None:
                held = f"; it holds {'; '.join(skipped.lines())}" if skipped.counts else ""
                failures.append(Failure(match, f"no images in this folder{held}"))
            else:
                roots.append(match)
    files = [root for root in roots if not _is_no_file(root)]
    homes = [root if os.path.isdir(root) else os.path.dirname(root) for root in files]
    base = os.path.commonpath([os.path.abspath(home) for home in homes]) if homes else ""
    return ResolvedInputs(
        tuple(roots), base, skip, tuple(failures), name_limits(skip), stdin, urls == "private"
    )


def _read_stdin() -> bytes:
    """Content of standard input.

    Raises:
        ArtifactNetError: there is none, or it is a terminal.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise ArtifactNetError(f"{STDIN}: expected an image on standard input, as in `< photo.jpg`")
    return sys.stdin.buffer.read()


def iterate_images(
    inputs: ResolvedInputs, skipped: Skipped | None = None, walk: FileWalk | None = None
) -> Iterator[ImageInput | Failure]:
    """Every image once, in a fixed order, written as the user wrote its file or folder.

    A parquet shard named outright, or by a pattern, stands for its rows. A file's generator is
    the name of its folder and its uid the name without suffix, as in the benchmark's layouts.
    Files of folders that are no images are counted in ``skipped``; one that has the name of an
    image is a failure. ``walk`` knows what was listed before and so is not listed again.
    """
    skipped = Skipped() if skipped is None else skipped
    for path in iterate_paths(inputs, skipped, walk):
        if isinstance(path, Failure):
            yield path
        elif path == STDIN:
            empty = Failure(STDIN, "standard input is empty")
            yield ImageInput(STDIN, inputs.stdin, None, "stdin") if inputs.stdin else empty
        elif _is_no_file(path):
            yield _fetch(path, inputs.private)
        elif path.lower().endswith(SHARD_SUFFIX):
            yield from iterate_shard(path)
        else:
            folder, name = os.path.split(os.path.abspath(path))
            uid = os.path.splitext(name)[0]
            yield ImageInput(path, path, os.path.basename(folder) or None, uid)


def count_images(inputs: ResolvedInputs) -> int:
    """How many items `iterate_images` yields, failures included; of a shard its rows."""
    total = 0
    for path in iterate_paths(inputs, Skipped()):
        rows = 1
        if isinstance(path, str) and path.lower().endswith(SHARD_SUFFIX):
            try:
                rows = open_parquet(path).metadata.num_rows
            except ArtifactNetError:
                rows = 1  # one failure, which says what is wrong
        total += rows
    return total


def iterate_paths(
    inputs: ResolvedInputs, skipped: Skipped, walk: FileWalk | None = None
) -> Iterator[str | Failure]:
    """Every file once, in a fixed order: images and shards, URLs, ``-`` for standard input.

    See `iterate_images` for ``skipped`` and ``walk``.
    """
    walk = walk or FileWalk(inputs.skip)
    several = len(inputs.roots) > 1  # one folder alone has no file twice, however many it has
    seen: set[str] = set()
    for root in inputs.roots:
        inside = not _is_no_file(root) and os.path.isdir(root)
        for path in _folder(root, walk, skipped) if inside else (root,):
            if isinstance(path, Failure):
                yield path
                continue
            key = path if _is_no_file(path) else os.path.abspath(path)
            if key not in seen:
                if several:
                    seen.add(key)
                yield path


def answer_name(path: str, inputs: ResolvedInputs) -> str:
    """Name for the pictures of an image; unique per image.

    It is the `short_path`, shortened with a hash where the file system would not take it.
    """
    return file_path(short_path(path, inputs), inputs.limits)


def short_path(path: str, inputs: ResolvedInputs) -> str:
    """Path of an image below the common folder, with forward slashes; ``-`` of standard input.

    A URL becomes one name, percent-encoded.
    """
    if _is_no_file(path):
        return quote(path, safe="")
    return Path(os.path.relpath(os.path.abspath(path), inputs.base)).as_posix()


def _is_no_file(root: str) -> bool:
    """Whether an input is standard input or a URL."""
    return root == STDIN or (is_url(root) and not os.path.lexists(root))


def _fetch(url: str, private: bool) -> ImageInput | Failure:
    try:
        content = fetch_image(url, private)
    except ArtifactNetError as error:
        return Failure(url, str(error))
    return ImageInput(url, content, None, quote(url, safe=""))


def _folder(folder: str, walk: FileWalk, skipped: Skipped) -> Iterator[str | Failure]:
    """Images of a folder, and what has the name of one but is none, or cannot be listed."""
    closed: list[OSError] = []
    for entry in walk.files(folder, skipped, onerror=closed.append):
        if entry.reason is None:
            yield entry.path
        elif entry.claims:
            yield Failure(entry.path, entry.complaint)
        else:
            skipped.add(entry.reason, entry.path)
    for error in closed:
        yield Failure(str(error.filename), f"the folder cannot be listed ({error.strerror})")


def _expand(pattern: str) -> Iterator[str]:
    """What a glob pattern stands for; ``**`` enters each real folder once."""
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from glob.glob(pattern)
        return
    at = parts.index("**")
    before, after = os.path.join("", *parts[:at]), os.path.join("", *parts[at + 1 :])
    for base in glob.glob(before) if before else ["."]:
        if not after:
            yield base
            continue
        for folder, _ in FileWalk().folders(base, Skipped(), onerror=lambda error: None):
            place = folder if before else os.path.relpath(folder)
            yield from _expand(os.path.normpath(os.path.join(glob.escape(place), after)))


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
