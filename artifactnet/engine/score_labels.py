"""Ground truth for the scoring commands: annotated rows of parquet files, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from artifactnet.data.images import MAX_PIXELS
from artifactnet.types import ArtifactNetError

COLUMNS = ("generator", "uid", "labels", "width", "height")


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One annotated image, as its row states it.

    Attributes:
        generator: name of the generator.
        uid: of the image; generator and uid together name it.
        width: pixels.
        height: pixels.
        labels: X-AIGD polygons, see `artifactnet.data.masks.rasterize`; not yet checked.
        place: file and row, for messages.
    """

    generator: str
    uid: str
    width: int
    height: int
    labels: Sequence[Mapping[str, Any]]
    place: str

    def __str__(self) -> str:
        return f"{self.place} ({self.generator}/{self.uid})"


def read_labels(files: Sequence[str | Path]) -> list[LabelRow]:
    """Read the rows of all files, in order.

    Only the columns that are needed are read; ``image`` may be absent. A row whose ``labels``
    is null or empty was annotated and is clean.

    Args:
        files: parquet files of the X-AIGD schema, or patterns of their names.

    Raises:
        ArtifactNetError: no such file, not parquet, a column is missing or of another type, a
            row has no usable generator, uid or size, or two rows are of one image.
    """
    rows: list[LabelRow] = []
    seen: dict[tuple[str, str], LabelRow] = {}
    for path in _expand(files):
        for number, values in enumerate(_read(path).to_pylist()):
            row = _row(values, f"{path}#{number}")
            first = seen.setdefault((row.generator, row.uid), row)
            if first is not row:
                raise ArtifactNetError(
                    f"two rows of image {row.generator}/{row.uid}: {first.place} and {row.place}; "
                    "remove one"
                )
            rows.append(row)
    if not rows:
        raise ArtifactNetError(f"{', '.join(map(str, files))}: no rows to score against")
    return rows


def _expand(files: Sequence[str | Path]) -> list[Path]:
    """Files in the order given; a pattern's matches by name; each file once."""
    paths: list[Path] = []
    for file in map(str, files):
        found = [file] if Path(file).is_file() else sorted(glob(file))
        paths += [Path(name) for name in found if Path(name).is_file()]
        if not any(Path(name).is_file() for name in found):
            raise ArtifactNetError(f"{file}: no such label file; name parquet files or a pattern")
    return list(dict.fromkeys(paths))


def _read(path: Path) -> pa.Table:
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        for column in COLUMNS:
            if column not in schema.names:
                raise ArtifactNetError(
                    f"{path}: column {column!r} is missing; it has {', '.join(schema.names)}"
                )
        kind = schema.field("labels").type
        if not _holds_polygons(kind):
            raise ArtifactNetError(
                f"{path}: column 'labels' must be a list of structs with 'label' and 'points', "
                f"not {kind}"
            )
        return file.read(columns=list(COLUMNS), use_threads=False)
    except (OSError, pa.ArrowException) as error:
        line = " ".join(str(error).split())
        raise ArtifactNetError(f"{path}: cannot be read as parquet ({line})") from error


def _holds_polygons(kind: pa.DataType) -> bool:
    if pa.types.is_null(kind):  # not one annotated image in the file
        return True
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    item = kind.value_type
    if pa.types.is_null(item):  # only empty lists
        return True
    return pa.types.is_struct(item) and {"label", "points"} <= {field.name for field in item}


def _row(values: dict[str, Any], place: str) -> LabelRow:
    generator, uid = values["generator"], values["uid"]
    if generator in (None, "") or uid in (None, ""):
        raise ArtifactNetError(f"{place}: generator or uid is empty")
    width, height = values["width"], values["height"]
    for side in (width, height):
        if not isinstance(side, int) or isinstance(side, bool) or side < 1:
            raise ArtifactNetError(
                f"{place} ({generator}/{uid}): width and height must be whole numbers above 0, "
                f"not {width!r} and {height!r}"
            )
    if width * height > MAX_PIXELS:
        raise ArtifactNetError(
            f"{place} ({generator}/{uid}): {width}x{height} pixels exceed the limit of "
            f"{MAX_PIXELS / 1e6:.0f} megapixels"
        )
    return LabelRow(str(generator), str(uid), width, height, values["labels"] or (), place)
