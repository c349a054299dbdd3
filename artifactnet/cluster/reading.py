"""The images of a unit, one after another: what is predicted, and what of it cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from artifactnet.cluster.storage import MAX_BYTES, Storage, describe, is_remote, local_path
from artifactnet.cluster.tars import iterate_tar
from artifactnet.cluster.units import Entry, Unit, digest
from artifactnet.data.image_files import Entry as Candidate
from artifactnet.data.image_files import why_no_image_content
from artifactnet.data.text import brief, parse_json
from artifactnet.inference.collect import iterate_shard
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.inference.lines import Version
from artifactnet.inference.stream import prefetch, read_ahead
from artifactnet.types import ArtifactNetError

_READERS = 16  # threads that fetch files over a network: one file takes some 50 ms there
_AHEAD = 32  # images of a tar or shard that wait for the model


_UNKNOWN = Version()


@dataclass(frozen=True, slots=True)
class Item:
    """An image of a unit.

    Attributes:
        source: the image, or why there is none.
        version: of its file, as far as known.
        unread: that its file, or the whole rest of the unit, could not be read, which may be
            otherwise at another time.
    """

    source: ImageInput | Failure
    version: Version = _UNKNOWN
    unread: bool = False


def read_unit(unit: Unit, storage: Storage, ahead: bool = True) -> Iterator[Item | None]:
    """Every image of a unit, in order; None for a file of a folder, or of a tar, that is none.

    Nothing that is wrong with an image or with a whole file stops it: it is a failure.

    Args:
        unit: what to read.
        storage: where its names lead.
        ahead: read some images before they are asked for, where that takes time.
    """
    if unit.kind in ("rows", "members"):
        found = _rows(unit, storage) if unit.kind == "rows" else _members(unit, storage)
        return read_ahead(found, _AHEAD) if ahead else found
    if unit.kind == "files":
        return _files([_Named(entry) for entry in unit.entries], storage, ahead)
    return _files(list(_lines(unit, storage)), storage, ahead)


class _Named(NamedTuple):
    """An image file, and what a manifest says of it."""

    entry: Entry
    generator: str | None = None
    uid: str | None = None


def _files(files: Sequence[_Named | Item], storage: Storage, ahead: bool) -> Iterator[Item | None]:
    def read(file: _Named | Item) -> Item | None:
        return file if isinstance(file, Item) else _file(file, storage)

    remote = any(isinstance(file, _Named) and is_remote(file.entry.path) for file in files)
    yield from prefetch(read, files, _READERS if remote and ahead else 0, 2 * _READERS)


def _file(file: _Named, storage: Storage) -> Item | None:
    entry = file.entry
    version = Version(entry.size, entry.modified)
    path = entry.path
    if entry.problem is not None:
        return Item(Failure(path, entry.problem), version)
    reasons: list[str] = []

    def accept(head: bytes) -> bool:
        reason = why_no_image_content(head) if entry.found else None
        if reason is not None:
            reasons.append(reason)
        return reason is None

    try:
        content = storage.read(path, accept)
        if content is not None and version.size is None:
            version = Version(len(content), _modified(path, storage))
    except OSError as error:
        reason = describe(error)
        text = reason if reason == "no such file" else f"cannot be read ({reason})"
        return Item(Failure(path, text), version, unread=True)
    except ArtifactNetError as error:
        return Item(Failure(path, str(error).removeprefix(f"{path}: ")), version)
    if content is None:
        candidate = Candidate(path, path, reasons[0])
        if not candidate.claims:
            return None
        return Item(Failure(path, candidate.complaint), version)
    folder, uid = _names(path, storage)
    return Item(ImageInput(path, content, file.generator or folder, file.uid or uid), version)


def _modified(path: str, storage: Storage) -> float | None:
    """When a file on a disk was changed; of others it is not asked for."""
    return None if is_remote(path) else os.stat(storage.place(path)).st_mtime


def _names(path: str, storage: Storage) -> tuple[str | None, str]:
    """Generator and uid of an image file: its folder, and its name without suffix."""
    if is_remote(path):
        place = PurePosixPath(path)
        return place.parent.name or None, place.stem
    folder, name = os.path.split(os.path.abspath(storage.place(path)))
    return os.path.basename(folder) or None, os.path.splitext(name)[0]


def _rows(unit: Unit, storage: Storage) -> Iterator[Item | None]:
    groups = range(unit.start, unit.end)
    for source in iterate_shard(unit.source, groups, storage.open_parquet):
        if isinstance(source, Failure):
            # what is said of the shard itself ends it; a row alone has its number
            yield Item(source, unread=source.path == unit.source)
        else:
            assert isinstance(source.image, bytes)
            yield Item(source, Version(len(source.image), unit.modified))


def _members(unit: Unit, storage: Storage) -> Iterator[Item | None]:
    name = unit.source
    try:
        with storage.open_stream(name) as file:
            for source in iterate_tar(file, name, MAX_BYTES):
                if isinstance(source, ImageInput):
                    assert isinstance(source.image, bytes)
                    yield Item(source, Version(len(source.image), unit.modified))
                else:
                    yield None if source is None else Item(source)
    except OSError as error:
        yield Item(Failure(name, f"cannot be read ({describe(error)})"), unread=True)
    except ArtifactNetError as error:
        yield Item(Failure(name, str(error).removeprefix(f"{name}: ")))


def _lines(unit: Unit, storage: Storage) -> Iterator[_Named | Item]:
    """The files that lines of a manifest name."""
    name = unit.source
    try:
        content = storage.read_range(name, unit.start, unit.end)
    except OSError as error:
        yield Item(Failure(name, f"cannot be read ({describe(error)})"), unread=True)
        return
    if digest(content) != unit.digest:
        yield Item(Failure(name, "the manifest was changed after the job began"), unread=True)
        return
    for number, line in enumerate(content.split(b"\n"), unit.first):
        if line.strip():
            yield _named(line, f"{name}:{number}", name)


def _named(line: bytes, where: str, manifest: str) -> _Named | Item:
    """The image of one line: its ``image``, relative to the folder of the manifest."""
    try:
        row = parse_json(line.removeprefix(b"\xef\xbb\xbf"), where)
        image = row.get("image") if isinstance(row, dict) else None
        if not isinstance(image, str) or not image or "\0" in image:
            raise ArtifactNetError(f"{where}: 'image' must be a path, not {brief(image)}")
    except ArtifactNetError as error:
        return Item(Failure(where, str(error).removeprefix(f"{where}: ")))
    image = local_path(image)
    if not is_remote(image):
        folder, slash, _ = manifest.rpartition("/")
        remote = is_remote(manifest)
        image = f"{folder}{slash}{image}" if remote else str(Path(manifest).parent / image)
    names = (row.get(key) for key in ("generator", "uid"))
    generator, uid = (value if isinstance(value, str) and value else None for value in names)
    return _Named(Entry(image), generator, uid)
