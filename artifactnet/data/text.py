"""Reading text and JSON that others wrote: one clear error for whatever is wrong with it."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any

from artifactnet.types import ArtifactNetError

_LONGEST = 200  # characters of a value in a message
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 3


def brief(value: object) -> str:
    """``repr`` of a value for an error message: one line, cut where it is long or deep."""
    text = " ".join(_SHORT.repr(value).split("\n"))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def read_text(path: Path) -> str:
    """Content of a UTF-8 file, with or without a byte order mark.

    Raises:
        ArtifactNetError: it cannot be read, or is no UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArtifactNetError(
            f"{path}: cannot be read as a text file ({error}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise ArtifactNetError(f"{path}: cannot be read ({error.strerror})") from None


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse JSON; ``where`` names its place in errors.

    Raises:
        ArtifactNetError: it is no JSON, is nested too deeply, or an object has a key twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) < len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"key {brief(repeated)} occurs twice")
        return row

    try:
        return json.loads(text, object_pairs_hook=once)
    except RecursionError:
        raise ArtifactNetError(f"{where}: not readable as JSON (nested too deeply)") from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise ArtifactNetError(f"{where}: not readable as JSON ({error})") from None
