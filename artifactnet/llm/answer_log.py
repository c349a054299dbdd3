"""Answers that cost money, kept in a file as they come: one JSON object a line, never changed."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from artifactnet.llm.client import Answer
from artifactnet.types import ArtifactNetError

logger = logging.getLogger(__name__)
Key = Mapping[str, str]  # what was asked: flat, of strings


class AnswerLog:
    """The answers of a file, by what was asked; safe with several threads of one process.

    A process that is killed while it writes leaves half a line at the end. It is cut off, with a
    warning, logged at once: that answer is asked for again. Damage elsewhere is an error.

    Args:
        path: made if missing; no two processes may have it open.

    Attributes:
        path: as given.
        added: answers added since the file was opened.
        warnings: what a reader must know.

    Raises:
        ArtifactNetError: the file is damaged, cannot be read, or another process has it open.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: tuple[str, ...] = ()
        self.added = 0
        self._answers: dict[str, list[Answer]] = defaultdict(list)
        self._busy: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        try:
            _lock_file(self._file.fileno(), path)
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> AnswerLog:
        """The log itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; what was added is on disk already."""
        self._file.close()

    def answers(self, key: Key) -> list[Answer]:
        """All answers to one question, in the order in which they came."""
        with self._lock:
            return list(self._answers.get(_name(key), ()))

    def has(self, wanted: Callable[[Key], bool]) -> bool:
        """Whether there is an answer with such a key."""
        with self._lock:
            names = [name for name, answers in self._answers.items() if answers]
        return any(wanted(json.loads(name)) for name in names)

    def add(self, key: Key, answer: Answer, note: str) -> None:
        """Write an answer to disk, for good, then remember it.

        Args:
            key: what was asked.
            answer: what came.
            note: for people, not part of the key: the image's name.

        Raises:
            OSError: the disk is full, or the like.
        """
        row = {"key": dict(key), "note": note, "finish": answer.finish, "text": answer.text}
        # ASCII only: a lone surrogate, which JSON of a server can hold, has no UTF-8
        line = (json.dumps(row) + "\n").encode("ascii")
        with self._lock:
            _append(self._file.fileno(), line)
            self._answers[_name(key)].append(answer)
            self.added += 1

    @contextmanager
    def alone(self, key: Key) -> Iterator[None]:
        """Keep other threads from asking the same at the same time."""
        with self._lock:
            lock = self._busy[_name(key)]
        with lock:
            yield

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        end = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:end].split(b"\n"), 1):
            if line.strip():
                self._take(line, f"{self.path}:{number}")
        if end < len(content):
            self.warnings += (
                f"{self.path}: its last line is only half written ({len(content) - end} bytes), "
                "as after a crash; it is cut off and that answer asked for again",
            )
            self._file.truncate(end)
            logger.warning("%s", self.warnings[-1])  # now: what follows may take hours, or fail

    def _take(self, line: bytes, where: str) -> None:
        """Check one line and remember its answer."""
        try:
            row = json.loads(line)
            key, answer = row["key"], Answer(row["text"], row["finish"])
            good = isinstance(key, dict) and all(isinstance(v, str) for v in key.values())
            good = good and isinstance(answer.text, str) and isinstance(answer.finish, str)
        except (ValueError, KeyError, TypeError, RecursionError):
            good = False
        if not good:
            raise ArtifactNetError(f"{where}: no line of a log of answers; mend or remove it")
        self._answers[_name(key)].append(answer)


def _name(key: Mapping[str, Any]) -> str:
    return json.dumps(dict(key), sort_keys=True)


def _append(number: int, line: bytes) -> None:
    """Write a line as a whole or, where the disk is full, not at all."""
    start = os.fstat(number).st_size
    try:
        written = 0
        while written < len(line):
            written += os.write(number, line[written:])
        os.fsync(number)
    except OSError:
        os.ftruncate(number, start)
        raise


def _lock_file(number: int, path: Path) -> None:
    """Refuse a file that another process writes; two would pay for every answer twice."""
    if os.name != "posix":
        return  # no such locks there: the documentation asks for one process per file
    import fcntl

    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ArtifactNetError(f"{path}: another process is writing it; wait for it") from None
