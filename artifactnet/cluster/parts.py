"""The answers of a job: one parquet file per unit, written as a whole, and what lists them.

```
OUT/predictions/part-ID.parquet     one row per image, in the order of the unit
OUT/predictions.settings.json       how the answers are made
OUT/predictions.manifest.json       all parts in the order of the inputs, written last
OUT/_temporary/                     files that are being written
```
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from artifactnet.cluster.storage import Storage, describe, is_remote, local_path, split_url
from artifactnet.inference.stability import AS_IS, VARIANTS
from artifactnet.types import ArtifactNetError

PARTS = "predictions"
MANIFEST = "predictions.manifest.json"
SETTINGS = "predictions.settings.json"
TEMPORARY = "_temporary"
_START, _END = "part-", ".parquet"
_HASH = b"artifactnet.settings"  # key in the metadata of a part
_ROWS, _BYTES = 1000, 16 << 20  # of a row group, whatever comes first

_INSTANCE = pa.struct(
    [
        ("category", pa.string()),
        ("box", pa.list_(pa.int64())),
        ("area", pa.int64()),
        ("confidence", pa.float64()),
    ]
)
_STABILITY = pa.struct(
    [
        ("probabilities", pa.struct([(name, pa.float64()) for name in (AS_IS, *VARIANTS)])),
        ("lowest", pa.float64()),
        ("highest", pa.float64()),
        ("spread", pa.float64()),
        ("unstable", pa.bool_()),
    ]
)
_REGION = pa.struct([("bbox", pa.list_(pa.float64())), ("caption", pa.string())])
_RATIONALE = pa.struct(
    [(name, pa.string()) for name in ("description", "regions", "issues", "text")]
)
SCHEMA = pa.schema(
    [
        # as in predictions.jsonl; the heatmap is the content of its PNG file
        ("path", pa.string()),
        ("probability", pa.float64()),
        ("is_fake", pa.bool_()),
        ("verdict", pa.string()),
        ("score", pa.float64()),
        ("instances", pa.list_(_INSTANCE)),
        ("warnings", pa.list_(pa.string())),
        ("explanation", _RATIONALE),
        ("stability", _STABILITY),
        ("regions", pa.list_(_REGION)),
        ("tags", pa.list_(pa.string())),
        ("generator", pa.string()),
        ("uid", pa.string()),
        ("heatmap", pa.binary()),
        ("bytes", pa.int64()),
        ("modified", pa.float64()),
        # why there is no prediction, and whether another attempt could read the image
        ("error", pa.string()),
        ("unread", pa.bool_()),
    ]
)
_NAMES = ("path", "generator", "uid", "error")  # from data: any characters


@dataclass(slots=True)
class PartCounts:
    """What a part, or several, hold.

    Attributes:
        rows: images, predicted or not.
        fakes, uncertain: predictions of that verdict.
        unstable: predictions whose verdict flips between re-encodings.
        errors: images without prediction.
        unread: of ``errors`` those that could not be read.
    """

    rows: int = 0
    fakes: int = 0
    uncertain: int = 0
    unstable: int = 0
    errors: int = 0
    unread: int = 0

    def add(self, other: PartCounts) -> None:
        """Count another part too."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Answers:
    """The folder of a job's answers, on a disk or behind a URL.

    Args:
        out: path or URL of the folder.

    Raises:
        ArtifactNetError: there is no such file system.
    """

    def __init__(self, out: str) -> None:
        out = local_path(out)
        if is_remote(out):
            remote = Storage([out], "").remote(split_url(out)[1])
            self._files: fs.FileSystem = remote.files
            self.name = split_url(out)[1]
            self._base = remote.path(self.name)
        else:
            self._files, self._base, self.name = fs.LocalFileSystem(), out, out

    def make_folders(self) -> None:
        """Make what is missing of the folders.

        Raises:
            OSError: it cannot be made.
        """
        for folder in (PARTS, TEMPORARY):
            self._files.create_dir(f"{self._base}/{folder}", recursive=True)

    def list_parts(self) -> set[str]:
        """Ids of the units whose answers are there."""
        selector = fs.FileSelector(f"{self._base}/{PARTS}", allow_not_found=True)
        names = (info.base_name for info in self._files.get_file_info(selector))
        return {
            name[len(_START) : -len(_END)]
            for name in names
            if name.startswith(_START) and name.endswith(_END)
        }

    def part(self, unit: str) -> str:
        """Path of a part below the folder."""
        return f"{PARTS}/{_START}{unit}{_END}"

    def count(self, unit: str, settings: str) -> PartCounts | None:
        """What a part holds; None: it is damaged, or was made with other settings."""
        columns = ["verdict", "error", "unread", "stability"]
        try:
            with self._files.open_input_file(f"{self._base}/{self.part(unit)}") as file:
                parquet = pq.ParquetFile(file)
                metadata = parquet.schema_arrow.metadata or {}
                if metadata.get(_HASH) != settings.encode():
                    return None
                table = parquet.read(columns=columns, use_threads=False)
        except (OSError, pa.ArrowException):
            return None
        return _count(table)

    def write_part(self, unit: str, settings: str, rows: Iterable[Mapping[str, Any]]) -> PartCounts:
        """Write the rows of a unit, which appear as a whole, and count them.

        Args:
            unit: its id.
            settings: what stands for the settings of the answers.
            rows: with the columns of `SCHEMA`; some are in memory at a time.

        Raises:
            OSError: it cannot be written; nothing has appeared.
        """
        counts = PartCounts()
        schema = SCHEMA.with_metadata({_HASH: settings.encode()})
        with (
            self._temporary(self.part(unit)) as file,
            pq.ParquetWriter(file, schema, compression="zstd") as writer,
        ):
            for group in _groups(rows):
                table = pa.Table.from_pylist(group, schema=schema)
                counts.add(_count(table))
                writer.write_table(table)
        return counts

    def remove_parts(self, units: Collection[str]) -> None:
        """Remove the answers of these units."""
        for unit in units:
            self._files.delete_file(f"{self._base}/{self.part(unit)}")

    def read_json(self, name: str) -> Any:
        """What a file of the folder says; None: there is none, or it is no JSON."""
        try:
            with self._files.open_input_stream(f"{self._base}/{name}") as file:
                return json.loads(file.read())
        except (FileNotFoundError, ValueError):
            return None

    def write_json(self, name: str, data: Any) -> None:
        """Write a file of the folder, which appears as a whole."""
        self.write_lines(name, [json.dumps(data, indent=2, allow_nan=False) + "\n"])

    def write_lines(self, name: str, lines: Iterable[str]) -> None:
        """Write a file of the folder, which appears as a whole, piece by piece."""
        with self._temporary(name) as file:
            for line in lines:
                file.write(line.encode("ascii"))

    def open_temporary(self, name: str) -> pa.NativeFile:
        """A temporary file, to read it from its start."""
        return self._files.open_input_stream(f"{self._base}/{TEMPORARY}/{name}")

    def clear_temporary(self) -> None:
        """Remove all temporary files."""
        self._files.delete_dir(f"{self._base}/{TEMPORARY}")

    @contextmanager
    def _temporary(self, name: str) -> Iterator[pa.NativeFile]:
        """A file that gets its name when the block ends without error."""
        path = f"{self._base}/{TEMPORARY}/{uuid4().hex}"
        with self._files.open_output_stream(path) as file:
            yield file
        self._files.move(path, f"{self._base}/{name}")


def write_manifest(
    answers: Answers,
    about: Mapping[str, Any],
    order: Iterable[tuple[str, str]],
    counts: Mapping[str, PartCounts],
) -> None:
    """Write the list of all parts, in the order of the inputs.

    Args:
        answers: where.
        about: what the list begins with.
        order: id and source of each unit.
        counts: by unit; one without is left out.

    Raises:
        OSError: it cannot be written.
    """

    def pieces() -> Iterator[str]:
        yield json.dumps(about, indent=2)[:-2] + ',\n  "parts": ['
        comma = "\n    "
        for unit, source in order:
            if unit in counts:
                part = {"file": answers.part(unit), "source": source, **asdict(counts[unit])}
                yield comma + json.dumps(part)
                comma = ",\n    "
        yield "\n  ]\n}\n"

    answers.write_lines(MANIFEST, pieces())


def write_failed(answers: Answers, error: Exception) -> ArtifactNetError:
    """The error about answers that cannot be written."""
    return ArtifactNetError(f"{answers.name}: the answers cannot be written: {describe(error)}")


def _groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(dict(row) | {name: _text(row[name]) for name in _NAMES})
        size += len(row["heatmap"] or b"")
        if len(group) == _ROWS or size >= _BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _text(value: str | None) -> str | None:
    """What UTF-8 cannot encode, as in names of files that are no text, is spelled out."""
    return None if value is None else value.encode("utf-8", "backslashreplace").decode()


def _count(table: pa.Table) -> PartCounts:
    def number(mask: pa.ChunkedArray) -> int:
        return int(pc.sum(mask).as_py() or 0)

    verdict = table.column("verdict")
    return PartCounts(
        rows=table.num_rows,
        fakes=number(pc.equal(verdict, "fake")),
        uncertain=number(pc.equal(verdict, "uncertain")),
        unstable=number(pc.struct_field(table.column("stability"), "unstable")),
        errors=table.num_rows - table.column("error").null_count,
        unread=number(table.column("unread")),
    )
