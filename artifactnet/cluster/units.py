"""Units of work: what one worker reads, predicts and writes as one parquet file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

_DIGEST = 12  # bytes; two of a billion units share an id with a chance of 1e-11


def digest(content: bytes) -> str:
    """Hexadecimal digits that stand for a content."""
    return blake2b(content, digest_size=_DIGEST).hexdigest()


Kind = Literal["files", "rows", "members", "lines"]


class Entry(NamedTuple):
    """An image file.

    Attributes:
        path: its name, see `storage`.
        size: bytes; None: unknown.
        modified: time of its last change, seconds since 1970; None: unknown.
        problem: why it cannot be predicted, or a whole source cannot be read; None: nothing known.
        found: whether it was found in a folder whose files nobody has looked into; its content
            decides whether it is an image.
    """

    path: str
    size: int | None = None
    modified: float | None = None
    problem: str | None = None
    found: bool = False


@dataclass(frozen=True, slots=True)
class Unit:
    """Images that become one parquet file.

    Attributes:
        kind: image ``files``, ``rows`` of a parquet shard, the ``members`` of a tar, or image files
            named by ``lines`` of a manifest.
        source: the shard, tar or manifest; of files the first.
        start, end: row groups of a shard, bytes of a manifest; the end is not in it.
        first: number of the first line, from 1.
        images: how many are expected; None of a tar.
        size, modified: of the shard or tar, as in `Entry`.
        digest: of a manifest's lines.
        entries: the files.
    """

    kind: Kind
    source: str
    start: int = 0
    end: int = 0
    first: int = 0
    images: int | None = None
    size: int | None = None
    modified: float | None = None
    digest: str = ""
    entries: tuple[Entry, ...] = ()

    @property
    def id(self) -> str:
        """Name of the unit: hexadecimal digits of a hash.

        A unit has another id as soon as a file of it has another name, size or time of change.
        """
        return digest(self.to_json())

    def to_json(self) -> bytes:
        """One line of JSON, without its end."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(values, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_json(cls, line: bytes | str) -> Unit:
        """What `to_json` wrote."""
        values: dict[str, Any] = json.loads(line)
        values["entries"] = tuple(Entry(*entry) for entry in values["entries"])
        return cls(**values)
