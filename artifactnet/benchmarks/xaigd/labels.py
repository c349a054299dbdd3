"""Annotated rows to score against, and the check that predictions belong to their images.

Without the check, a misspelled generator or uid would silently score zero.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from artifactnet.data.images import MAX_PIXELS
from artifactnet.data.shard_values import check_names, parse_labels
from artifactnet.data.shards import RowLocation, read_rows
from artifactnet.data.text import brief
from artifactnet.taxonomy import AGNOSTIC, BY_LABEL, FINE_GRAINED
from artifactnet.types import ArtifactNetError

COLUMNS = ("generator", "uid", "labels", "width", "height")


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One annotated image, as in its row; generator and uid together name it."""

    generator: str
    uid: str
    width: int  # pixels
    height: int  # pixels
    labels: Sequence[Mapping[str, Any]]  # points are not checked; see `artifactnet.data.masks`
    place: str  # file and row, for messages
    location: RowLocation | None = None  # of its image

    def __str__(self) -> str:
        return f"{self.place} ({self.generator}/{self.uid})"


def read_labels(files: Sequence[str | Path]) -> list[LabelRow]:
    """Read the rows of all files, in order.

    The column ``image`` is not needed. Null or empty ``labels`` mean: annotated as clean.

    Args:
        files: parquet files of the X-AIGD schema, or glob patterns.

    Raises:
        ArtifactNetError: a file is missing or not parquet, a column is missing or of another type,
            a row has no usable generator, uid or size, or two rows describe the same image.
    """
    rows: list[LabelRow] = []
    seen: dict[tuple[str, str], LabelRow] = {}
    for path in _expand(files):
        for place, values in read_rows(path, COLUMNS, images=False):
            row = _row(values, place)
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
    """Every file once, in the given order; matches of a pattern by name."""
    paths: list[Path] = []
    for file in map(str, files):
        names = [file] if Path(file).is_file() else sorted(glob(file))
        matches = [Path(name) for name in names if Path(name).is_file()]
        if not matches:
            raise ArtifactNetError(f"{file}: no such label file; name parquet files or a pattern")
        paths += matches
    return list(dict.fromkeys(paths))


def _row(values: dict[str, Any], place: RowLocation) -> LabelRow:
    check_names(values, place)
    generator, uid = values["generator"], values["uid"]
    width, height = values["width"], values["height"]
    where = f"{place} ({generator}/{uid})"
    for side in (width, height):
        if not isinstance(side, int) or isinstance(side, bool) or side < 1:
            raise ArtifactNetError(
                f"{where}: width and height must be whole numbers above 0, "
                f"not {brief(width)} and {brief(height)}"
            )
    if width * height > MAX_PIXELS:
        raise ArtifactNetError(
            f"{where}: {width}x{height} pixels exceed {MAX_PIXELS / 1e6:.0f} megapixels, the limit"
        )
    labels = parse_labels(values["labels"], where)
    return LabelRow(generator, uid, width, height, labels, str(place), place)


def check_layout(root: str | Path, task: str, rows: Sequence[LabelRow]) -> tuple[str, ...]:
    """Compare the folders of predicted masks with the annotated images.

    Args:
        root: folder that contains a folder per generator.
        task: of `artifactnet.taxonomy.TASKS`; decides the layout below them.
        rows: of the images.

    Returns:
        a warning if there are folders for other images, which are not scored.

    Raises:
        ArtifactNetError: the folder is missing, has the layout of the other task, an unknown
            category or a mask outside its image's folder, or no folder matches any image.
    """
    if not Path(root).is_dir():
        raise ArtifactNetError(f"{root}: no such folder of predicted masks")
    uids: dict[str, set[str]] = {}
    for row in rows:
        uids.setdefault(row.generator, set()).add(row.uid)
    unmatched: list[str] = []
    matched = 0
    for generator in _folders(str(root)):
        folder = os.path.join(root, generator)
        if generator not in uids:
            unmatched.append(folder)
            continue
        for path in _image_folders(folder, task, uids[generator]):
            if os.path.basename(path) in uids[generator]:
                matched += 1
            else:
                unmatched.append(path)
    return report_unmatched(unmatched, matched)


def report_unmatched(unmatched: Sequence[str], matched: int) -> tuple[str, ...]:
    """A warning if there are predictions for images that are not in the labels.

    Args:
        unmatched: where they are: folders, or rows of a file.
        matched: number of the other predictions.

    Raises:
        ArtifactNetError: no prediction matches an image.
    """
    if not unmatched:
        return ()
    if not matched:
        raise ArtifactNetError(
            f"{unmatched[0]}: belongs to no image of the labels, nor does any other prediction; "
            "write generator and uid as in the labels"
        )
    others = f" and {len(unmatched) - 1} more" if unmatched[1:] else ""
    return (
        f"{unmatched[0]}{others}: predictions for images that are not in the labels; "
        "they are not scored",
    )


def _image_folders(folder: str, task: str, uids: set[str]) -> list[str]:
    """Folders of one generator that should each contain the masks of one image."""
    names = _folders(folder)
    if task == AGNOSTIC:
        for name in names:
            if name in BY_LABEL and name not in uids:
                raise ArtifactNetError(
                    f"{os.path.join(folder, name)}: a category instead of a uid; this is the "
                    f"layout of --task {FINE_GRAINED}"
                )
        return [os.path.join(folder, name) for name in names]
    for name in names:
        if name not in BY_LABEL:
            hint = (
                f"a uid instead of a category; this is the layout of --task {AGNOSTIC}"
                if name in uids
                else f"unknown artifact category; known: {', '.join(BY_LABEL)}"
            )
            raise ArtifactNetError(f"{os.path.join(folder, name)}: {hint}")
    categories = [os.path.join(folder, name) for name in names]
    return [os.path.join(path, uid) for path in categories for uid in _folders(path)]


def _folders(path: str) -> list[str]:
    """Names of the folders in a folder; a mask beside them is an error."""
    names = []
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_dir():
                names.append(entry.name)
            elif entry.name.lower().endswith(".png"):
                raise ArtifactNetError(
                    f"{entry.path}: masks must be in a folder named by the uid of their image"
                )
    return names
