"""Which files of a folder are images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from artifactnet.data.images import EXTENSIONS
from artifactnet.types import ArtifactNetError


def list_images(folder: Path) -> Iterator[tuple[str, str]]:
    """(path relative to ``folder``, full path) of every image file below it, sorted.

    Raises:
        ArtifactNetError: a folder cannot be listed.
    """
    for current, names, files in os.walk(folder, onerror=raise_unreadable, followlinks=True):
        names.sort()
        relative = os.path.relpath(current, folder)
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith("."):
                yield os.path.normpath(os.path.join(relative, name)), os.path.join(current, name)


def raise_unreadable(error: OSError) -> None:
    """For `os.walk`: say which folder cannot be listed."""
    raise ArtifactNetError(f"{error.filename}: cannot be listed ({error.strerror})") from error
