"""Do the predictions belong to the images of the labels? Misspelt names would score zero."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import pyarrow as pa

from artifactnet.data.images import MAX_PIXELS
from artifactnet.data.shards import open_parquet, parquet_errors
from artifactnet.taxonomy import AGNOSTIC, BY_LABEL, FINE_GRAINED
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
    file = open_parquet(path, COLUMNS)
    kind = file.schema_arrow.field("labels").type
    if not _holds_polygons(kind):
        raise ArtifactNetError(
            f"{path}: column 'labels' must be a list of structs with 'label' and 'points', "
            f"not {kind}"
        )
    with parquet_errors(f"{path}: cannot be read as parquet"):
        return file.read(columns=list(COLUMNS), use_threads=False)


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


def check_layout(root: str | Path, task: str, rows: Sequence[LabelRow]) -> tuple[str, ...]:
    """Compare the folders of predicted masks with the images to be scored.

    Args:
        root: folder of the generators' folders.
        task: of `artifactnet.taxonomy.TASKS`; says how images lie below them.
        rows: of the images.

    Returns:
        a warning if there are folders for other images, which are not scored.

    Raises:
        ArtifactNetError: no such folder, the layout of the other task, an unknown category, a
            mask outside the folder of its image, or no folder belongs to any image.
    """
    if not Path(root).is_dir():
        raise ArtifactNetError(f"{root}: no such folder of predicted masks")
    uids: dict[str, set[str]] = {}
    for row in rows:
        uids.setdefault(row.generator, set()).add(row.uid)
    strange: list[str] = []
    known = 0
    for generator in _folders(str(root)):
        folder = os.path.join(root, generator)
        if generator not in uids:
            strange.append(folder)
            continue
        for path in _image_folders(folder, task, uids[generator]):
            if os.path.basename(path) in uids[generator]:
                known += 1
            else:
                strange.append(path)
    return report_unmatched(strange, known)


def report_unmatched(strange: Sequence[str], known: int) -> tuple[str, ...]:
    """Say which predictions are for images that the labels do not have.

    Args:
        strange: where those are: folders, or rows of a file.
        known: number of the other predictions.

    Returns:
        a warning if there are any.

    Raises:
        ArtifactNetError: there are only such predictions.
    """
    if strange and not known:
        raise ArtifactNetError(
            f"{strange[0]}: belongs to no image of the labels, nor does any other prediction; "
            "write generator and uid as the labels do"
        )
    if strange:
        others = f" and {len(strange) - 1} more" if strange[1:] else ""
        return (
            f"{strange[0]}{others}: predictions for images that the labels do not have; "
            "they are not scored",
        )
    return ()


def _image_folders(folder: str, task: str, uids: set[str]) -> list[str]:
    """Folders of one generator that should each hold the masks of one image."""
    names = _folders(folder)
    if task == AGNOSTIC:
        for name in names:
            if name in BY_LABEL and name not in uids:
                raise ArtifactNetError(
                    f"{os.path.join(folder, name)}: a category where a uid belongs; this is the "
                    f"layout of --task {FINE_GRAINED}"
                )
        return [os.path.join(folder, name) for name in names]
    for name in names:
        if name not in BY_LABEL:
            hint = (
                f"a uid where a category belongs; this is the layout of --task {AGNOSTIC}"
                if name in uids
                else f"unknown artifact category; known: {', '.join(BY_LABEL)}"
            )
            raise ArtifactNetError(f"{os.path.join(folder, name)}: {hint}")
    categories = [os.path.join(folder, name) for name in names]
    return [os.path.join(path, uid) for path in categories for uid in _folders(path)]


def _folders(path: str) -> list[str]:
    """Names of the folders in a folder that should hold nothing else."""
    names = []
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_dir():
                names.append(entry.name)
            elif entry.name.lower().endswith(".png"):
                raise ArtifactNetError(
                    f"{entry.path}: masks must lie in a folder called by the uid of their image"
                )
    return names
