"""Writing files so that a crash never leaves half of one, and hashing them."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20  # bytes read at once


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Temporary sibling of ``path`` that replaces it when the block ends without error.

    The temporary file (``.NAME.XXXXXXXX.tmp``) exists and is empty; its name is unique among all
    processes, also of containers that share the folder. It is flushed to disk before the rename
    and removed on any error, so ``path`` holds either its old content or the whole new one. A
    file that is replaced keeps its mode, and a new one follows the umask, even if the writer
    creates private files.

    Raises:
        OSError: the folder cannot be written or the disk is full; ``path`` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        if not path.exists():
            # mkstemp's files are private. The umask can only be read by changing it, which other
            # threads would notice, so look at what it makes of a new file.
            temporary.unlink()
            temporary.touch(exist_ok=False)
        mode = stat.S_IMODE((path if path.exists() else temporary).stat().st_mode)
        yield temporary
        with open(temporary, "rb+") as file:
            if stat.S_IMODE(os.stat(temporary).st_mode) != mode:
                os.chmod(temporary, mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Atomically write UTF-8 text."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Atomically write ``data`` as indented JSON; NaN is refused, since it is not JSON."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def hash_files(paths: Iterable[str | Path], hasher: hashlib._Hash | hashlib.blake2b) -> str:
    """Hexadecimal digest of the content of files, one after another, read in chunks.

    ``hasher``, of `hashlib`, may already have seen other bytes, which come first.

    Raises:
        OSError: a file cannot be read.
    """
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
    return hasher.hexdigest()


def sha256_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's content, read in chunks."""
    return hash_files([path], hashlib.sha256())
