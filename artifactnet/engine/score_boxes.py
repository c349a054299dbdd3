"""Predicted boxes of a CSV file, checked row by row and grouped by image."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path

from artifactnet.taxonomy import INSTANCE_COLUMNS, category
from artifactnet.types import ArtifactNetError

_LIMITS = INSTANCE_COLUMNS[3:]
Box = tuple[float, float, float, float]


@dataclass(slots=True)
class ImageBoxes:
    """Predicted boxes of one image.

    Attributes:
        place: file and row of the first one, for messages.
        boxes: category index 1..7 -> (x_min, y_min, x_max, y_max) of each, pixels.
    """

    place: str = ""
    boxes: dict[int, list[Box]] = field(default_factory=dict)


def read_boxes(path: str | Path) -> dict[tuple[str, str], ImageBoxes]:
    """Read a CSV file with the columns `INSTANCE_COLUMNS`; others are ignored.

    Rows are counted as in a spreadsheet: the header is row 1.

    Returns:
        (generator, uid) -> its boxes, in the order of the file.

    Raises:
        ArtifactNetError: the file cannot be read, a column is missing, or a row has too few or
            too many values, an unknown category or a limit that is no finite number.
    """
    images: dict[tuple[str, str], ImageBoxes] = {}
    try:
        # Spreadsheets begin UTF-8 files with a mark that would become part of the first name.
        with open(path, newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, strict=True)
            missing = [name for name in INSTANCE_COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ArtifactNetError(
                    f"{path}: column {missing[0]!r} is missing; needed are "
                    f"{','.join(INSTANCE_COLUMNS)}"
                )
            for row in reader:
                place = f"{path}: row {reader.line_num}"
                index, box = _box(row, place)
                image = images.setdefault((row["generator"], row["uid"]), ImageBoxes(place))
                image.boxes.setdefault(index, []).append(box)
    except FileNotFoundError:
        raise ArtifactNetError(f"{path}: no such file of predicted boxes") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactNetError(f"{path}: cannot be read as CSV ({error})") from error
    return images


def _box(row: dict[str, str], place: str) -> tuple[int, Box]:
    """Category index and limits of one row."""
    if None in row or None in row.values():  # how DictReader marks too many and too few
        raise ArtifactNetError(f"{place} has not as many values as the header has columns")
    try:
        index = category(row["category"]).index
    except ValueError as error:
        raise ArtifactNetError(f"{place}: {error}") from None
    x_min, y_min, x_max, y_max = (_number(row[name], f"{place}: {name}") for name in _LIMITS)
    return index, (x_min, y_min, x_max, y_max)


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ArtifactNetError(f"{what} must be a finite number, not {text!r}")
    return value
