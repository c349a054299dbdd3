"""Answers as JSON lines: appended as they come, continued after a stop, whole at the end.

``NAME.partial.jsonl`` grows while the work goes on and becomes ``NAME.jsonl`` at its end, so that
``NAME.jsonl`` never lacks an answer. ``NAME.settings.json`` says how the answers were made.
"""

from __future__ import annotations

import json
import os
import shutil
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

import numpy as np

from artifactnet.data.text import brief
from artifactnet.files import atomic_path, write_json
from artifactnet.types import ArtifactNetError

UNANSWERED = -1  # in place of the offset of a line


def partial_file(path: Path) -> Path:
    """Where the answers of ``path`` are until all of them are there."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def settings_file(path: Path) -> Path:
    """Where it says how the answers of ``path`` were made."""
    return path.with_name(f"{path.stem}.settings.json")


def can_continue(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether there are answers of ``path`` that `AnswerLines` takes up with these settings."""
    source = _find_source(path)
    saved = None if source is None else _saved_settings(path, source)
    return saved is not None and not _different(saved, settings)


def check_settings(
    source: object,
    name: str,
    saved: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    advice: str,
) -> None:
    """Refuse to continue answers that were made in another way.

    Args:
        source: where the answers are, for the error.
        name: of the file that says how they were made.
        saved: what it says; None: nothing.
        settings: how answers are made now.
        advice: ends the error.

    Raises:
        ArtifactNetError: they differ, or it is not known.
    """
    if saved is None:
        raise ArtifactNetError(
            f"{source}: cannot be resumed, since {name} does not say how its answers were made; "
            f"{advice}"
        )
    differ = _different(saved, settings)
    if differ:
        changes = ", ".join(
            f"{key}={brief(saved.get(key))}, now {brief(new)}" for key, new in differ.items()
        )
        raise ArtifactNetError(
            f"{source}: its answers were made with other settings ({changes}); {advice}"
        )


class AnswerLines:
    """Writes JSON lines that appear as a whole, and finds those of an interrupted run.

    Enter it, `append` answers, and `finish`. Without `finish` the partial file stays, unless no
    answer came. A few bytes per line are held in memory.

    Args:
        path: the finished file; an older one is replaced at the end.
        staging: see `artifactnet.files.staging_folder`; it also keeps other processes away.
        settings: how the answers are made, ready for JSON; None: they are never resumed.
        resume: keep the answers of an interrupted run, or else of a finished one. False: a
            partial file is removed.
        keys: of every answer; a line without one of them is damaged.
        advice: ends the error about other settings.

    Attributes:
        appended: answers that were appended.
        earlier: answers that were found.
        images: that they are about; of two answers about one image the last counts.
        broken: lines that were no answers, and so are written anew.

    Raises:
        ArtifactNetError: earlier answers were made with other or unknown settings.
        OSError: a file cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        staging: Path,
        settings: Mapping[str, Any] | None = None,
        resume: bool = False,
        keys: Collection[str] = ("path",),
        advice: str = "leave out --resume to start anew, or write to another folder",
    ) -> None:
        self.path = path
        self.appended = self.earlier = self.images = self.broken = 0
        self._partial = partial_file(path)
        self._keys, self._advice = frozenset(keys), advice
        self._staging, self._settings = staging, settings
        self._source: Path | None = None  # the file of the earlier answers
        self._end = 0  # of the earlier answers that are whole
        self._index = _Index([], [])
        self._reader: BinaryIO | None = None
        self._file: BinaryIO | None = None
        self._open = ExitStack()
        if resume:
            self._find_earlier()
        else:
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> AnswerLines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def find(self, path: str) -> tuple[int, dict[str, Any]] | None:
        """The earlier answer about an image: offset of its line, and what it says; None: none."""
        for offset in self._index.find(path):
            entry = self._read(offset)
            if entry["path"] == path:
                return offset, entry
        return None

    def all_earlier(self) -> Iterator[dict[str, Any]]:
        """Every earlier answer."""
        return map(self._read, self._index.offsets.tolist())

    def append(self, entry: Mapping[str, Any]) -> int:
        """Add an answer, which is in the partial file at once; returns the offset of its line."""
        line = json.dumps(entry, allow_nan=False).encode("ascii") + b"\n"
        file = self._file or self._start()
        offset = self._end
        file.write(line)
        file.flush()
        self._end += len(line)
        self.appended += 1
        return offset

    def entries(self, order: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The answers at these offsets; `UNANSWERED` is left out."""
        return (self._read(offset) for offset in order if offset != UNANSWERED)

    def finish(self, order: Iterable[int]) -> None:
        """Make the answers at these offsets, in this order, the finished file."""
        kept = np.array([offset for offset in order if offset != UNANSWERED], np.int64)
        complete = len(kept) == self.earlier + self.appended and not self.broken
        whole = complete and bool((np.diff(kept) > 0).all())
        if not (whole and self._source == self.path and self._file is None):
            file = self._file or self._start()
            os.fsync(file.fileno())
            if whole:
                os.replace(self._partial, self.path)
            else:
                with (
                    atomic_path(self.path, self._staging) as temporary,
                    open(temporary, "wb") as lines,
                ):
                    lines.writelines(self._line(offset) for offset in kept.tolist())
                self._partial.unlink()
        self._write_settings(self.path)

    def _find_earlier(self) -> None:
        self._source = _find_source(self.path)
        if self._source is None:
            return
        self._check_settings(self._source)
        self._reader = self._keep_open(self._source, "rb")
        keys, offsets = array("Q"), array("q")
        for line in self._reader:
            if not line.endswith(b"\n"):
                break  # half a line: the process was killed while it wrote it
            entry = _parse(line, self._keys)
            if entry is None:
                self.broken += 1
            else:
                keys.append(_key(entry["path"]))
                offsets.append(self._end)
            self._end += len(line)
        self._index, self.earlier = _Index(keys, offsets), len(offsets)
        self.images = len(set(keys))

    def _check_settings(self, source: Path) -> None:
        saved = _saved_settings(self.path, source)
        name = settings_file(self.path).name
        check_settings(source, name, saved, self._settings or {}, self._advice)

    def _start(self) -> BinaryIO:
        """Open the partial file; it begins with the earlier answers."""
        if self._source == self.path:
            with atomic_path(self._partial, self._staging) as temporary:
                shutil.copyfile(self.path, temporary)
        if self._source is not None:
            os.truncate(self._partial, self._end)
        else:
            self._partial.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._keep_open(self._partial, "ab")
        self._write_settings(self._partial)
        self._reader = self._keep_open(self._partial, "rb")
        return self._file

    def _keep_open(self, path: Path, mode: str) -> BinaryIO:
        """Open a file until the end of the ``with`` block."""
        file = cast(BinaryIO, open(path, mode))  # noqa: SIM115
        return self._open.enter_context(file)

    def _write_settings(self, answers: Path) -> None:
        if self._settings is not None:
            saved = {"answers": answers.name, **self._settings}
            write_json(settings_file(self.path), saved, self._staging)

    def _line(self, offset: int) -> bytes:
        assert self._reader is not None
        self._reader.seek(offset)
        return self._reader.readline()

    def _read(self, offset: int) -> dict[str, Any]:
        entry: dict[str, Any] = json.loads(self._line(offset))
        return entry


class _Index:
    """Where the line about an image is: 16 bytes per line, since there may be millions."""

    def __init__(self, keys: Iterable[int], offsets: Iterable[int]) -> None:
        unsorted = np.array(keys, np.uint64)
        order = np.argsort(unsorted, kind="stable")
        self._keys = unsorted[order]
        self.offsets = np.array(offsets, np.int64)[order]

    def find(self, path: str) -> list[int]:
        """Lines that may be about an image, the last one first."""
        key = np.uint64(_key(path))
        start, end = (int(np.searchsorted(self._keys, key, side)) for side in ("left", "right"))
        return [int(offset) for offset in self.offsets[start:end][::-1]]


def _find_source(path: Path) -> Path | None:
    """The file of the earlier answers."""
    places = (partial_file(path), path)
    return next((p for p in places if p.is_file() and p.stat().st_size), None)


def _saved_settings(path: Path, source: Path) -> dict[str, Any] | None:
    """How the answers in ``source`` were made; None where that is not known."""
    try:
        saved = json.loads(settings_file(path).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    # a killed process may have begun to continue finished answers and not said so yet
    known = (source.name, path.name)
    return saved if isinstance(saved, dict) and saved.get("answers") in known else None


def _different(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not as saved."""
    wanted: dict[str, Any] = json.loads(json.dumps(settings))
    return {k: new for k, new in wanted.items() if k not in saved or saved[k] != new}


def _key(path: str) -> int:
    digest = blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _parse(line: bytes, keys: frozenset[str]) -> dict[str, Any] | None:
    """An answer; None where a line is none."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not keys <= entry.keys():
        return None
    return entry if isinstance(entry["path"], str) else None
