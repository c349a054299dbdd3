"""The rows of parquet shards as images to judge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifactnet.data.shards import Place, ShardReader, read_rows
from artifactnet.inference.inputs import Failure, Source
from artifactnet.types import ArtifactNetError

SUFFIX = ".parquet"
MAX_NAME = 200  # bytes of a generator or uid; file systems end at 255
_COLUMNS = ("generator", "uid")


def shard_rows(shard: str) -> Iterator[Source | Failure]:
    """Images of a shard in its order; one row group is in memory at a time.

    Args:
        shard: parquet file in the X-AIGD schema; only ``image``, ``generator`` and ``uid`` are
            read.

    Yields:
        A source named ``shard#row`` per row, or why there is none; a failure named after the
        shard where it cannot be read any further.
    """
    reader, place = ShardReader(), None
    try:
        for place, row in read_rows(Path(shard), _COLUMNS):
            yield _source(reader, place, row, f"{shard}#{place.number}")
    except ArtifactNetError as error:
        yield Failure(shard, str(error).removeprefix(f"{Path(shard)}: "))
        return
    if place is None:
        yield Failure(shard, "the shard has no rows")


def _source(reader: ShardReader, place: Place, row: dict[str, Any], name: str) -> Source | Failure:
    for column in _COLUMNS:
        problem = unsafe(row[column])
        if problem is not None:
            return Failure(name, f"{column} {row[column]!r:.80} {problem}")
    try:
        content, _ = reader.read(place)
    except ArtifactNetError as error:
        return Failure(name, str(error).removeprefix(f"{place}: "))
    return Source(name, content, row["generator"], row["uid"])


def unsafe(name: object) -> str | None:
    """Why a name cannot name a folder of the answers; None if it can.

    Names come from data that others wrote: one that holds a separator, or is ``..``, would let
    them write anywhere.
    """
    if not isinstance(name, str):
        return "is not text"
    if not name.strip():
        return "is empty"
    if name in (".", "..") or any(c in "/\\" or not c.isprintable() for c in name):
        return "cannot name a folder"
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME:
        return f"is longer than {MAX_NAME} bytes"
    return None
