"""X-AIGD's parquet shards: finding, reading and writing them, a row group at a time.

`open_parquet` is the one place of the package that opens parquet files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from artifactnet.data.images import encode_png
from artifactnet.data.masks import encode_polygons
from artifactnet.data.shard_values import (
    check_column,
    is_image_struct,
    largest_exact,
    to_name,
    to_whole,
)
from artifactnet.taxonomy import Category
from artifactnet.types import ArtifactNetError, UInt8Array

PARTS = ("labeled_train", "labeled_test", "unlabeled_train", "unlabeled_test")
COLUMNS = ("image", "generator", "uid", "labels", "width", "height")
CODEC_COLUMNS = ("image_format", "jpeg_quality", "chroma_subsampling")
GENERATOR = "edit"  # of the data sets written here
_POLYGON = pa.struct([("label", pa.string()), ("points", pa.list_(pa.list_(pa.float64())))])
_TYPES = {
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    "generator": pa.string(),
    "uid": pa.string(),
    "labels": pa.list_(_POLYGON),
    "original_prompt": pa.string(),
    "positive_prompt": pa.string(),
    "negative_prompt": pa.string(),
    "guidance_scale": pa.float64(),
    "num_inference_steps": pa.int64(),
    "scheduler": pa.string(),
    "seed": pa.int64(),
    "width": pa.int64(),
    "height": pa.int64(),
    "image_format": pa.string(),
    "jpeg_quality": pa.int64(),
    "chroma_subsampling": pa.string(),
}
SCHEMA = pa.schema(list(_TYPES.items()))
_ROWS_PER_GROUP = 16  # a reader decodes one row group at a time


@dataclass(frozen=True, slots=True)
class RowLocation:
    """Where a row is."""

    shard: str
    group: int  # row group of the shard
    row: int  # row of the group
    number: int  # row of the shard

    def __str__(self) -> str:
        return f"{self.shard}#{self.number}"


def find_shards(root: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """Shards of each part in ``root/data`` or ``root``, and warnings; an error if there is none."""
    shards: dict[str, list[Path]] = {}
    warnings = []
    for part in PARTS:
        name = f"{part}-*.parquet"
        paths = sorted(root.glob(f"data/{name}")) or sorted(root.glob(name))
        if not paths:
            continue
        shards[part] = paths
        total = re.search(r"-of-(\d+)\.parquet$", paths[-1].name)
        if total and int(total[1]) != len(paths):
            folder = paths[0].parent
            warnings.append(f"{part}: {len(paths)} of {int(total[1])} shards are in {folder}")
    if not shards:
        raise ArtifactNetError(
            f"data.root={root}: no X-AIGD shards; expected data/labeled_train-*.parquet or "
            "data/labeled_test-*.parquet (the files of the data set as downloaded)"
        )
    return shards, warnings


@contextmanager
def parquet_errors(what: str) -> Iterator[None]:
    """Turn what parquet readers raise into an `ArtifactNetError` that starts with ``what``."""
    try:
        yield
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:  # also bad UTF-8
        reason = " ".join(str(error).split())[:300]
        raise ArtifactNetError(f"{what} ({reason or type(error).__name__})") from error


def open_parquet(
    path: str | Path, columns: Iterable[str] = (), file: pa.NativeFile | None = None
) -> pq.ParquetFile:
    """Open a parquet file that has these columns, of types that fit (see `check_column`).

    Args:
        path: of the file; with ``file``, what errors call it.
        columns: that it must have.
        file: the file, opened for random access, where it is not on a disk of this machine.

    Raises:
        ArtifactNetError: it cannot be read as parquet, lacks a column or has it twice, or a column
            has a type that cannot hold its values.
    """
    with parquet_errors(f"{path}: cannot be read as parquet"):
        # what comes over a network comes in few large pieces
        parquet = pq.ParquetFile(path if file is None else file, pre_buffer=file is not None)
        schema = parquet.schema_arrow
    for column in columns:
        count = schema.names.count(column)
        if count != 1:
            problem = "is missing" if count == 0 else f"occurs {count} times"
            raise ArtifactNetError(
                f"{path}: column {column!r} {problem}; it has {', '.join(schema.names):.300}"
            )
        check_column(path, schema.field(column))
    return parquet


# opens a shard by its name, as `open_parquet` does one on a disk
OpenParquet: TypeAlias = Callable[[str | Path, Iterable[str]], pq.ParquetFile]


def _read_group(file: pq.ParquetFile, path: str | Path, group: int, columns: list[str]) -> pa.Table:
    with parquet_errors(f"{path}: row group {group} cannot be read"):
        # One thread: a pool of threads does not survive the fork of a data loader's worker.
        return file.read_row_group(group, columns=columns, use_threads=False)


def read_rows(
    shard: str | Path,
    columns: Sequence[str],
    images: bool = True,
    groups: Container[int] | None = None,
    open_file: OpenParquet = open_parquet,
) -> Iterator[tuple[RowLocation, dict[str, Any]]]:
    """Rows of a shard: ``columns`` of it; ``image`` is only checked.

    Generator and uid are text where they can be (see `to_name`), and whole numbers ints. Labels
    are as stored, see `artifactnet.data.shard_values.parse_labels`. Without ``images`` the shard
    needs none. ``groups``: row groups to read; None: all. ``open_file``: see `OpenParquet`.

    Raises:
        ArtifactNetError: the file cannot be read, lacks a column, or one has a type that does not
            fit.
    """
    file = open_file(shard, (*columns, "image") if images else columns)
    others = [column for column in columns if column != "image"]
    names = [column for column in others if column in ("generator", "uid")]
    exact = {name: largest_exact(file.schema_arrow.field(name).type) for name in names}
    numbers = [column for column in others if column in ("width", "height", "jpeg_quality")]
    number = 0
    for group in range(file.metadata.num_row_groups):
        if groups is not None and group not in groups:
            number += file.metadata.row_group(group).num_rows
            continue
        table = _read_group(file, shard, group, others)
        with parquet_errors(f"{shard}: row group {group} cannot be read"):
            rows = table.to_pylist() if others else [{} for _ in range(table.num_rows)]
        for row, values in enumerate(rows):
            values.update({name: to_name(values[name], exact[name]) for name in names})
            values.update({name: to_whole(values[name]) for name in numbers})
            yield RowLocation(str(shard), group, row, number), values
            number += 1


class ShardReader:
    """Random access to images and labels; holds one row group in memory.

    Files are opened on first use in each process, so a reader can be pickled or forked into
    the workers of a data loader. Shuffled reading decodes one row group per image.

    Args:
        column: of the images.
        open_file: see `OpenParquet`.
    """

    def __init__(self, column: str = "image", open_file: OpenParquet = open_parquet) -> None:
        self._column, self._open = column, open_file
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._shard: str | None = None
        self._file: pq.ParquetFile | None = None
        self._group: int | None = None
        self._table: pa.Table | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_column": self._column, "_open": self._open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._column, self._open = state["_column"], state["_open"]
        self._reset()

    def read(self, place: RowLocation) -> tuple[bytes, dict[str, Any]]:
        """Content of the image file at ``place``, and the row's labels, width and height.

        Labels are as stored, see `artifactnet.data.shard_values.parse_labels`.

        Raises:
            ArtifactNetError: the shard cannot be read or the row has no image.
        """
        table = self._load(place)
        with parquet_errors(f"{place}: the row cannot be read"):
            row = {name: table.column(name)[place.row].as_py() for name in table.column_names}
        data = row.pop(self._column)
        if isinstance(data, dict):
            data = data.get("bytes")
        if not data:
            raise ArtifactNetError(f"{place}: the row has no image bytes")
        return data, row

    def _load(self, place: RowLocation) -> pa.Table:
        if self._pid != os.getpid():
            self._reset()
        if self._shard != place.shard:
            self._reset()
            self._file, self._shard = self._open(place.shard, (self._column,)), place.shard
        if self._group != place.group or self._table is None:
            assert self._file is not None
            self._table = None  # lets go of the old row group before the new one is read
            schema = self._file.schema_arrow
            image = self._column
            if is_image_struct(schema.field(image).type):
                image += ".bytes"
            extra = [x for x in ("labels", "width", "height") if schema.names.count(x) == 1]
            self._table = _read_group(self._file, place.shard, place.group, [image, *extra])
            self._group = place.group
        return self._table


@dataclass(frozen=True, slots=True)
class EditedPair:
    """A real image and its edited twin, (H, W, 3) uint8, and the fake's (H, W) bit-field mask.

    The ``uid`` is also the stem of the real image's file; ``categories`` are of the edits, in the
    order of their application.
    """

    uid: str
    real: UInt8Array
    fake: UInt8Array
    mask: UInt8Array
    categories: tuple[Category, ...]


def write_shard(folder: Path, split: str, pairs: Iterator[EditedPair], seed: int) -> list[str]:
    """Write ``data/labeled_<split>`` as one shard, and the real images into ``real``.

    Both sub-folders exist. Pairs are taken as they come, 16 in memory at a time; ``seed`` is
    written into every row. Returns the uids written; without any, no shard is written.
    """
    first = next(pairs, None)
    if first is None:
        return []
    pairs = chain([first], pairs)
    uids: list[str] = []
    shard = folder / "data" / f"labeled_{split}-00000-of-00001.parquet"
    with pq.ParquetWriter(shard, SCHEMA) as writer:
        while group := list(islice(pairs, _ROWS_PER_GROUP)):
            rows = [_row(pair, seed) for pair in group]
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
            for pair in group:
                (folder / "real" / f"{pair.uid}.png").write_bytes(encode_png(pair.real))
            uids += [pair.uid for pair in group]
    return uids


def _row(pair: EditedPair, seed: int) -> dict[str, Any]:
    """One row in the X-AIGD schema; the columns of a diffusion run hold empty values."""
    empty = {pa.string(): "", pa.int64(): 0, pa.float64(): 0.0}
    return {
        **{name: empty.get(kind) for name, kind in _TYPES.items()},
        "image": {"bytes": encode_png(pair.fake), "path": f"{pair.uid}.png"},
        "generator": GENERATOR,
        "uid": pair.uid,
        "labels": encode_polygons(pair.mask),
        "positive_prompt": "controlled edit: " + ", ".join(c.label for c in pair.categories),
        "seed": seed,
        "height": pair.mask.shape[0],
        "width": pair.mask.shape[1],
        "image_format": "PNG",  # of the real twin, as in X-AIGD
    }
