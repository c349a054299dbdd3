"""Writing files so that a crash never leaves half of one, and hashing them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20  # bytes read at once
_START = 100  # bytes of a name that its temporary file begins with; both must fit into a name


@contextmanager
def atomic_path(path: str | Path, staging: Path | None = None) -> Iterator[Path]:
    """Temporary file that replaces ``path`` when the block ends without error.

    The temporary file (``.NAME.XXXXXXXX.tmp``) exists and is empty; its name is unique among all
    processes, also of containers that share the folder. It is flushed to disk before the rename
    and removed on any error, so ``path`` holds either its old content or the whole new one. A
    file that is replaced keeps its mode, and a new one follows the umask, even if the writer
    creates private files.

    Args:
        path: the file to write.
        staging: folder of the temporary file, of `staging_folder`; None: that of ``path``, where
            a process that is killed leaves it behind.

    Raises:
        OSError: the folder cannot be written or the disk is full; ``path`` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    start = path.name.encode("utf-8", "replace")[:_START].decode("utf-8", "ignore")
    prefix = f".{start}." if staging is None else ""
    handle, name = tempfile.mkstemp(".tmp", prefix, staging or path.parent)
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


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """A visible folder for the temporary files of one process, removed when the block ends.

    What a killed process left in it is removed first. The folder is locked meanwhile, where the
    system has such locks.

    Raises:
        BlockingIOError: another process uses the folder.
        OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock_folder(folder)
    try:
        for leftover in folder.iterdir():
            leftover.unlink()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock_folder(folder: Path) -> int | None:
    """Descriptor that holds the lock until it is closed; None where there are no such locks."""
    if os.name != "posix":
        return None
    import fcntl

    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise BlockingIOError(f"another process writes to {folder.parent}") from None
    except OSError:  # of a network without locks
        os.close(lock)
        return None
    return lock


def write_text(path: str | Path, text: str, staging: Path | None = None) -> None:
    """Atomically write UTF-8 text; what UTF-8 cannot encode (\\udce9) is spelled out."""
    with atomic_path(path, staging) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, data: Any, staging: Path | None = None) -> None:
    """Atomically write ``data`` as indented JSON; NaN is refused, since it is not JSON."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n", staging)


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
