"""JSON lines with a fixed set of keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.types import ArtifactNetError


def read_rows(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a file with ``FILE:LINE`` of each; empty lines are skipped, null is absent.

    Raises:
        ArtifactNetError: the file cannot be read or has no line; a line is no JSON object, lacks a
            required key or has an unknown one.
    """
    empty = True
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        empty = False
        where = f"{path}:{number}"
        row = parse_json(line, where)
        if not isinstance(row, dict):
            raise ArtifactNetError(f"{where}: must be a JSON object, not {brief(row)}")
        known = (*required, *optional)
        unknown = [key for key in row if key not in known]
        if unknown:
            raise ArtifactNetError(
                f"{where}: unknown key {brief(unknown[0])}; known: {', '.join(known)}"
            )
        row = {key: value for key, value in row.items() if value is not None}
        missing = [key for key in required if key not in row]
        if missing:
            raise ArtifactNetError(
                f"{where}: {missing[0]!r} is missing; every line needs {', '.join(required)}"
            )
        yield where, row
    if empty:
        raise ArtifactNetError(f"{path}: has no line")


def name_of(row: dict[str, Any], key: str, where: str) -> str:
    """The value of a key that must be text.

    Raises:
        ArtifactNetError: it is another type, or blank.
    """
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise ArtifactNetError(f"{where}: {key!r} must be text, not {brief(value)}")
    return value
