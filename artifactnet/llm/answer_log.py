"""Append-only log of answers: one JSON object a line, so that nothing is paid for twice."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from artifactnet.llm.client import Answer
from artifactnet.types import ArtifactNetError

logger = logging.getLogger(__name__)
Key = Mapping[str, str]  # identifies a question


class AnswerLog:
    """The answers in a file, by question; thread-safe.

    A process that is killed while it writes leaves half a line at the end. That line is cut off
    with a warning, logged at once, and its answer requested again. Other damage is an error.

    Args:
        path: created if missing; only one process at a time may have it open.

    Attributes:
        added: answers added since the file was opened.
        warnings: about a line that was cut off.

    Raises:
        ArtifactNetError: the file is damaged, cannot be read, or is open in another process.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: tuple[str, ...] = ()
        self.added = 0
        self._answers: dict[str, list[Answer]] = defaultdict(list)
        self._key_locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
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

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; all answers are on disk already."""
        self._file.close()

    def answers(self, key: Key) -> list[Answer]:
        """All answers to one question, oldest first."""
        with self._lock:
            return list(self._answers.get(_serialize(key), ()))

    def has_answer(self, stage: str, model: str) -> bool:
        """Whether a model has answered any question of a stage."""
        with self._lock:
            texts = [text for text, answers in self._answers.items() if answers]
        keys = map(json.loads, texts)
        return any((key.get("stage"), key.get("model")) == (stage, model) for key in keys)

    def add(self, key: Key, answer: Answer, note: str) -> None:
        """Write an answer to disk (``fsync``), then remember it.

        The note is for people and not part of the key, e.g. the image's name.

        Raises:
            OSError: the disk is full, or the like; no partial line is left.
        """
        row = {"key": dict(key), "note": note, "finish": answer.finish, "text": answer.text}
        # ASCII only: a lone surrogate, which JSON of a server can hold, has no UTF-8
        line = (json.dumps(row) + "\n").encode("ascii")
        with self._lock:
            _append(self._file.fileno(), line)
            self._answers[_serialize(key)].append(answer)
            self.added += 1

    @contextmanager
    def exclusive(self, key: Key) -> Iterator[None]:
        """Keep other threads from asking the same question at the same time."""
        with self._lock:
            lock = self._key_locks[_serialize(key)]
        with lock:
            yield

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        end = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:end].split(b"\n"), 1):
            if line.strip():
                key, answer = _parse_line(line, f"{self.path}:{number}")
                self._answers[_serialize(key)].append(answer)
        if end < len(content):
            self.warnings += (
                f"{self.path}: its last line is only half written ({len(content) - end} bytes), "
                "as after a crash; it was cut off and that answer will be requested again",
            )
            self._file.truncate(end)
            logger.warning("%s", self.warnings[-1])  # now: the work may take hours, or fail


def _parse_line(line: bytes, where: str) -> tuple[Key, Answer]:
    try:
        row = json.loads(line)
        key, answer = row["key"], Answer(row["text"], row["finish"])
        good = isinstance(key, dict) and all(isinstance(v, str) for v in key.values())
        good = good and isinstance(answer.text, str) and isinstance(answer.finish, str)
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise ArtifactNetError(f"{where}: not a line of an answer log; repair or remove it")
    return key, answer


def _serialize(key: Key) -> str:
    return json.dumps(dict(key), sort_keys=True)


def _append(number: int, line: bytes) -> None:
    """Write a line completely or, if the disk is full, not at all."""
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
    """Refuse a file that another process writes; both would pay for every answer."""
    if os.name != "posix":
        return  # no such locks: the documentation asks for one process per file
    import fcntl

    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ArtifactNetError(f"{path}: another process is writing it; wait for it") from None
