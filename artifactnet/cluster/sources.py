"""What the inputs of a job stand for, cut into units of work in a fixed order.

On a disk of this machine the inputs mean what they mean to `predict` without an engine. Behind a
URL a folder is listed without looking into its files: each worker looks into what it reads.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from zlib import crc32

from pyarrow import fs

from artifactnet.cluster.storage import (
    Remote,
    Storage,
    describe,
    is_remote,
    local_and_remote,
    local_path,
    split_lines,
    split_url,
)
from artifactnet.cluster.tars import SUFFIXES as TARS
from artifactnet.cluster.units import Entry, Unit, digest
from artifactnet.data.image_files import ARCHIVE, HIDDEN, SHARD, TEXT, Skipped
from artifactnet.inference.collect import SHARD_SUFFIX, STDIN, iterate_paths, resolve_inputs
from artifactnet.inference.inputs import Failure
from artifactnet.inference.stream import prefetch
from artifactnet.types import ArtifactNetError

MANIFEST_SUFFIX = ".jsonl"
_OPENERS = 8  # threads that look into shards
_MAGIC = re.compile(r"[*?[]")


def list_units(
    sources: Sequence[str], storage: Storage, out: str, together: int, skipped: Skipped
) -> Iterator[Unit]:
    """Every image of the inputs in one unit, found as they are asked for.

    Args:
        sources: files, folders (searched deeply) and patterns, on disks or as URLs. A parquet
            file stands for its rows, a tar for its members, a ``.jsonl`` file for the images that
            its lines name, each if it is named outright or by a pattern.
        storage: where names lead.
        out: folder of the answers, in which nothing is looked for.
        together: about how many images make a unit. A tar and a row group are never cut.
        skipped: counts files of folders that are no images.

    Raises:
        ArtifactNetError: an input stands for nothing, or cannot be listed.
    """
    lister = _Lister(storage, together)
    local, remote = local_and_remote(sources)
    if STDIN in local:
        raise ArtifactNetError(f"{STDIN}: the ray engine reads files, not standard input")
    if local:
        yield from lister.cut(_local_files(local, storage, out, skipped))
    several = len(remote) > 1 or any("**" in url for url in remote)
    seen: set[str] | None = set() if several else None
    for url in remote:
        yield from lister.cut(_new(_remote_files(url, storage, out, skipped), seen))


def _new(entries: Iterable[Entry], seen: set[str] | None) -> Iterator[Entry]:
    """Each file once; ``seen`` None: none can come twice."""
    for entry in entries:
        if seen is not None:
            if entry.path in seen:
                continue
            seen.add(entry.path)
        yield entry


def _local_files(
    sources: Sequence[str], storage: Storage, out: str, skipped: Skipped
) -> Iterator[Entry]:
    resolved = resolve_inputs(sources, "" if is_remote(local_path(out)) else local_path(out))
    for failure in resolved.failures:
        hint = "; name shards by a pattern, as in 'FOLDER/*.tar'"
        shards = failure.reason.startswith("no images in this folder; it holds")
        raise ArtifactNetError(f"{failure.path}: {failure.reason}{hint if shards else ''}")
    for path in iterate_paths(resolved, skipped):
        if isinstance(path, Failure):
            yield Entry(path.path, problem=path.reason)
            continue
        try:
            status = os.stat(storage.place(path))
        except OSError:
            yield Entry(path)  # reading it says what is wrong
        else:
            yield Entry(path, status.st_size, status.st_mtime)


class _Lister:
    """Makes units of files."""

    def __init__(self, storage: Storage, together: int) -> None:
        self._storage, self._together = storage, together

    def cut(self, entries: Iterable[Entry]) -> Iterator[Unit]:
        """Units of the files of one input."""
        images: list[Entry] = []
        for kind, files in groupby(entries, _kind_of):
            if kind == "rows":
                # the ends of shards are read, which takes a while over a network
                found: Iterable[list[Unit] | Entry] = prefetch(
                    self._shard, files, _OPENERS, 4 * _OPENERS
                )
            elif kind == "members":
                found = ([_tar(entry)] for entry in files)
            elif kind == "lines":
                found = ([unit] for entry in files for unit in self._manifest(entry))
            else:
                found = files
            for units in found:
                if isinstance(units, list):
                    yield from units
                    continue
                images.append(units)
                if self._ends(units, len(images)):
                    yield _files(images)
                    images = []
            if images:
                yield _files(images)
                images = []

    def _ends(self, entry: Entry, count: int) -> bool:
        """Whether a unit ends with this file.

        Its name decides, within limits, so that a file that is added later changes its own unit
        and no other.
        """
        least = max(1, self._together // 2)
        name = entry.path.encode("utf-8", "surrogatepass")
        ends = crc32(name) % (self._together - least + 1) == 0
        return count >= 2 * self._together or (count >= least and ends)

    def _shard(self, entry: Entry) -> list[Unit] | Entry:
        """Units of a parquet file, each of one or more row groups."""
        try:
            metadata = self._storage.open_parquet(entry.path, ("image",)).metadata
        except ArtifactNetError as error:
            return entry._replace(problem=str(error).removeprefix(f"{entry.path}: "))
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        if not sum(rows):
            return entry._replace(problem="the shard has no rows")
        units, start, images = [], 0, 0
        for group, count in enumerate(rows):
            images += count
            if images >= self._together or group == len(rows) - 1:
                units.append(
                    Unit(
                        "rows", entry.path, start, group + 1, images=images, size=entry.size,
                        modified=entry.modified,
                    )
                )  # fmt: skip
                start, images = group + 1, 0
        return units

    def _manifest(self, entry: Entry) -> Iterator[Unit]:
        """Units of a manifest, each of some of its lines."""
        name, start, first, images = entry.path, 0, 1, 0
        content = bytearray()
        number = 0
        try:
            with self._storage.open_stream(name) as file:
                for number, line in enumerate(split_lines(file), 1):
                    content += line
                    images += bool(line.strip())
                    if images == self._together:
                        yield _lines(name, start, bytes(content), first, images)
                        start, first, images = start + len(content), number + 1, 0
                        content.clear()
        except OSError as error:
            raise ArtifactNetError(f"{name}: cannot be read ({describe(error)})") from error
        if images:
            yield _lines(name, start, bytes(content), first, images)
        elif start == 0:
            raise ArtifactNetError(f"{name}: the manifest names no image")


def _kind_of(entry: Entry) -> str:
    name = entry.path.lower()
    if entry.problem is not None or entry.found:
        return "files"
    if name.endswith(SHARD_SUFFIX):
        return "rows"
    if name.endswith(TARS):
        return "members"
    return "lines" if name.endswith(MANIFEST_SUFFIX) else "files"


def _files(entries: Sequence[Entry]) -> Unit:
    return Unit("files", entries[0].path, images=len(entries), entries=tuple(entries))


def _tar(entry: Entry) -> Unit:
    return Unit("members", entry.path, size=entry.size, modified=entry.modified)


def _lines(name: str, start: int, content: bytes, first: int, images: int) -> Unit:
    end = start + len(content)
    return Unit("lines", name, start, end, first, images, digest=digest(content))


def _remote_files(url: str, storage: Storage, out: str, skipped: Skipped) -> Iterator[Entry]:
    """Files that a URL, or a pattern of URLs, stands for."""
    name = split_url(url)[1]
    remote = storage.remote(name)
    path = remote.path(name)
    skip = remote.path(split_url(out)[1]) if _same_host(out, name) else ""
    empty = True
    try:
        for info in _expand(remote, path):
            if skip and f"{info.path}/".startswith(f"{skip}/"):
                continue
            if info.type is fs.FileType.Directory:
                folder = _folder(remote, info.path, skip, skipped)
            else:
                folder = iter([_entry(remote, info)])
            for entry in folder:
                empty = False
                yield entry
    except OSError as error:
        raise ArtifactNetError(f"{name}: cannot be listed ({describe(error)})") from error
    if empty:
        held = f"; it holds {'; '.join(skipped.lines())}" if skipped.counts else ""
        hint = f"; name shards by a pattern, as in '{name}/*.tar'" if skipped.counts else ""
        raise ArtifactNetError(f"{name}: no such file, or no images in this folder{held}{hint}")


def _same_host(first: str, second: str) -> bool:
    return split_url(split_url(first)[0])[1] == split_url(split_url(second)[0])[1]


def _expand(remote: Remote, path: str) -> Iterator[fs.FileInfo]:
    """Files and folders that a path with wildcards stands for, sorted within each folder."""
    names = path.split("/")
    plain = next((k for k, name in enumerate(names) if _MAGIC.search(name)), len(names))
    base = "/".join(names[:plain])
    if plain == len(names):
        info = remote.files.get_file_info(base)
        if info.type is not fs.FileType.NotFound:
            yield info
        return
    yield from _match(remote, base, names[plain:])


def _match(remote: Remote, base: str, names: list[str]) -> Iterator[fs.FileInfo]:
    name, rest = names[0], names[1:]
    inside = sorted(
        remote.files.get_file_info(fs.FileSelector(base or "/", allow_not_found=True)),
        key=lambda info: str(info.base_name),
    )
    if name == "**":
        if not rest:
            yield from (info for info in inside if not info.base_name.startswith("."))
            return
        yield from _match(remote, base, rest)
    for info in inside:
        folder = info.type is fs.FileType.Directory
        if name == "**":
            if folder and not info.base_name.startswith("."):
                yield from _match(remote, info.path, names)
        elif _fits(info.base_name, name):
            if not rest:
                yield info
            elif folder:
                yield from _match(remote, info.path, rest)


def _fits(name: str, pattern: str) -> bool:
    """As a shell matches: a leading dot only where it is written."""
    hidden = name.startswith(".") and not pattern.startswith(".")
    return not hidden and fnmatch.fnmatchcase(name, pattern)


def _folder(remote: Remote, folder: str, skip: str, skipped: Skipped) -> Iterator[Entry]:
    """Files below a folder that may be images."""
    if folder == skip:
        return
    infos = remote.files.get_file_info(fs.FileSelector(folder))
    for info in sorted(infos, key=lambda info: str(info.base_name)):
        name = remote.name(info.path)
        if info.base_name.startswith("."):
            skipped.add(HIDDEN, name)
        elif info.type is fs.FileType.Directory:
            try:
                yield from _folder(remote, info.path, skip, skipped)
            except OSError as error:
                yield Entry(name, problem=f"the folder cannot be listed ({describe(error)})")
        else:
            entry = _entry(remote, info)
            kind = _kind_of(entry)
            if kind == "files":
                yield entry._replace(found=True)
            else:
                skipped.add({"rows": SHARD, "members": ARCHIVE, "lines": TEXT}[kind], name)


def _entry(remote: Remote, info: fs.FileInfo) -> Entry:
    modified = None if info.mtime_ns is None else info.mtime_ns / 1e9
    return Entry(remote.name(info.path), info.size, modified)
