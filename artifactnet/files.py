"""Writing files so that a crash never leaves half of one."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Temporary sibling of ``path`` that takes its place when the block ends without error.

    The temporary file is flushed to disk before the rename and removed on any error, so
    ``path`` holds either its old content or the whole new one. A file that is replaced keeps
    its mode, and a new one gets that of any new file, whoever writes it.

    Raises:
        OSError: the folder cannot be written or the disk is full; ``path`` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        mode = _mode_for(path, temporary)
        yield temporary
        with open(temporary, "rb+") as handle:
            if stat.S_IMODE(os.stat(temporary).st_mode) != mode:
                os.chmod(temporary, mode)
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _mode_for(path: Path, probe: Path) -> int:
    """Permission bits that ``path`` shall have: some writers give their files to the owner alone.

    What the umask allows is seen on a file: it can only be read by changing it, which other
    threads would notice.
    """
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    return mode


def write_text(path: str | Path, text: str) -> None:
    """Atomically write UTF-8 text."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Atomically write ``data`` as indented JSON; NaN is refused, since it is not JSON."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")
