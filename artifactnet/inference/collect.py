"""Finding the images that a command line names, and naming the answers about them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from artifactnet.data.images import EXTENSIONS
from artifactnet.inference.inputs import Failure, Source
from artifactnet.inference.shard_rows import SUFFIX, shard_rows


@dataclass(frozen=True, slots=True)
class Found:
    """What the inputs stand for.

    Attributes:
        roots: files and folders to look at, patterns resolved, in the order given.
        base: folder that holds all of them; answers are named by the path below it.
        skip: folder not to look into: the answers' own, which may lie among the images.
        failures: inputs that stand for nothing.
    """

    roots: tuple[str, ...]
    base: str
    skip: str
    failures: tuple[Failure, ...]


def resolve(inputs: Sequence[str | Path], skip: str | Path) -> Found:
    """Resolve files, folders and glob patterns (``**`` searches deeply).

    A name that exists is never taken for a pattern. A file named outright is tried whatever
    it is called; inside a folder the suffix decides what is an image.
    """
    roots: list[str] = []
    failures: list[Failure] = []
    skip = os.path.abspath(skip)
    for entry in map(str, inputs):
        matches = [entry] if os.path.lexists(entry) else sorted(glob.glob(entry, recursive=True))
        if not matches:
            failures.append(Failure(entry, "no such file or folder"))
        for match in matches:
            if os.path.isdir(match) and next(_files(match, skip), None) is None:
                failures.append(Failure(match, "no images in this folder"))
            else:
                roots.append(match)
    homes = [root if os.path.isdir(root) else os.path.dirname(root) for root in roots]
    base = os.path.commonpath([os.path.abspath(home) for home in homes]) if homes else ""
    return Found(tuple(roots), base, skip, tuple(failures))


def walk(found: Found) -> Iterator[Source | Failure]:
    """Every image once, in a fixed order, written as the user wrote its file or folder.

    A parquet shard that is named outright, or by a pattern, stands for its rows. A file's
    generator is the name of its folder and its uid the name without suffix, as in the layouts
    of the benchmark.
    """
    seen: set[str] = set()
    for root in found.roots:
        for path in _files(root, found.skip) if os.path.isdir(root) else (root,):
            key = os.path.abspath(path)
            if key not in seen:
                seen.add(key)
                if path.lower().endswith(SUFFIX):
                    yield from shard_rows(path)
                else:
                    folder, name = os.path.split(key)
                    yield Source(
                        path, path, os.path.basename(folder) or None, os.path.splitext(name)[0]
                    )


def answer_name(path: str, found: Found) -> str:
    """Name of an image below the common folder, with forward slashes; unique per image."""
    return Path(os.path.relpath(os.path.abspath(path), found.base)).as_posix()


def _files(folder: str, skip: str) -> Iterator[str]:
    closed: list[str] = []
    for here, folders, files in os.walk(folder, onerror=lambda e: closed.append(e.filename)):
        folders[:] = sorted(
            name for name in folders if os.path.abspath(os.path.join(here, name)) != skip
        )
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in EXTENSIONS:
                yield os.path.join(here, name)
    yield from closed  # folders that may not be read: they fail as images and are listed
