"""Weak localisation of artifact instances, scored from files (X-AIGD, Sec. A.5).

`artifactnet.metrics.regions` defines the instances, `artifactnet.metrics.instances` when a box
matches one; counts are summed over all images before any ratio is taken.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from artifactnet.benchmarks.xaigd.labels import LabelRow, read_labels, report_unmatched
from artifactnet.benchmarks.xaigd.tables import (
    ROW_ORDER,
    Counts,
    ScoreTable,
    make_table,
    parallel_map,
)
from artifactnet.data.masks import parse_label
from artifactnet.data.text import brief
from artifactnet.metrics.confusion import instance_scores
from artifactnet.metrics.instances import match_boxes
from artifactnet.metrics.regions import polygon_instances
from artifactnet.taxonomy import INSTANCE_COLUMNS, category_by_label
from artifactnet.types import ArtifactNetError

MIN_IMAGES = 2000  # per process; fewer take less time than starting it
_LIMITS = INSTANCE_COLUMNS[3:]
Box = tuple[float, float, float, float]  # x_min, y_min, x_max, y_max in pixels


@dataclass(slots=True)
class ImageBoxes:
    """Predicted boxes of one image."""

    place: str = ""  # file and row of the first one, for error messages
    boxes: dict[int, list[Box]] = field(default_factory=dict)  # by category index, 1..7


def read_boxes(path: str | Path) -> dict[tuple[str, str], ImageBoxes]:
    """Read a CSV file with the columns `INSTANCE_COLUMNS`; others are ignored.

    Messages count rows as a spreadsheet does: the header is row 1.

    Returns:
        (generator, uid) -> its boxes, in the order of the file.

    Raises:
        ArtifactNetError: the file cannot be read, a column is missing, or a row has too few or
            too many values, an unknown category or a coordinate that is not a finite number.
    """
    images: dict[tuple[str, str], ImageBoxes] = {}
    try:
        # spreadsheets start UTF-8 files with a byte order mark
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
    if None in row or None in row.values():  # DictReader's mark of too many or too few
        raise ArtifactNetError(f"{place}: number of values differs from the header's")
    try:
        index = category_by_label(row["category"]).index
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
        raise ArtifactNetError(f"{what} must be a finite number, not {brief(text)}")
    return value


def score_instances(
    labels: Sequence[str | Path],
    predictions: str | Path,
    overlap_threshold: float = 0.5,
    workers: int = 1,
    inclusive: bool = False,
) -> ScoreTable:
    """Score predicted boxes against annotated polygons.

    Args:
        labels: parquet files, see `read_labels`.
        predictions: CSV file, see `read_boxes`.
        overlap_threshold: share t of a box that must lie on an instance, exceeded strictly.
        workers: maximum number of processes, see `parallel_map`.
        inclusive: a share of exactly t is enough, as in the paper's text.

    Returns:
        columns ``generator, category, P@t, R@t, F1@t, TP, FP, FN, evaluated_images,
        zero_prediction_images, invalid_prediction_boxes``; fractions in [0, 1]. An image is a
        zero prediction of a category if it has no box of it, not even an invalid one.

    Raises:
        ArtifactNetError: labels or predictions are invalid, or the threshold is outside [0, 1].
    """
    return score_rows(read_labels(labels), predictions, overlap_threshold, workers, inclusive)


def score_rows(
    rows: Sequence[LabelRow],
    predictions: str | Path,
    overlap_threshold: float = 0.5,
    workers: int = 1,
    inclusive: bool = False,
) -> ScoreTable:
    """`score_instances` against rows that are read already."""
    if not 0 <= overlap_threshold <= 1:
        raise ArtifactNetError(
            f"the overlap threshold must be from 0 to 1, not {overlap_threshold}"
        )
    boxes = read_boxes(predictions)
    empty = ImageBoxes()
    pairs = [(row, boxes.pop((row.generator, row.uid), empty)) for row in rows]
    matched = sum(predicted is not empty for _, predicted in pairs)
    warnings = report_unmatched([image.place for image in boxes.values()], matched)
    count = partial(count_instances, overlap_threshold, inclusive=inclusive)
    counts = parallel_map(count, pairs, workers, MIN_IMAGES)
    lines = partial(_lines, overlap_threshold)
    return make_table([row.generator for row in rows], counts, lines, warnings)


def count_instances(
    t: float, image: tuple[LabelRow, ImageBoxes], inclusive: bool = False
) -> Counts:
    """Instances and boxes of one image at the overlap threshold ``t``; see `match_boxes`.

    Returns:
        (7, 6) int64, categories in the order of the table's rows: matched instances, unmatched
        boxes, unmatched instances, 1, 1 if there is no box, invalid boxes.

    Raises:
        ArtifactNetError: a polygon is invalid.
    """
    row, predicted = image
    polygons: dict[int, list[npt.NDArray[np.int32]]] = {}
    where, last = str(row), np.array([row.width - 1, row.height - 1], dtype=np.int32)
    for label in row.labels:
        bit, points = parse_label(label, where)
        # np.clip takes longer than drawing a small polygon
        points = np.minimum(np.maximum(points, 0), last)
        polygons.setdefault(bit, []).append(points)
    lines = np.zeros((len(ROW_ORDER), 6), dtype=np.int64)
    lines[:, 3] = 1
    for line, category in zip(lines, ROW_ORDER, strict=True):
        drawn, boxes = polygons.get(category.bit, []), predicted.boxes.get(category.index, [])
        line[4] = not boxes
        if drawn or boxes:
            truth = polygon_instances(drawn, row.height, row.width)
            counts = match_boxes(truth, boxes, t, inclusive).counts
            line[[0, 1, 2, 5]] = counts.tp, counts.fp, counts.fn, counts.invalid
    return lines


def _lines(t: float, generator: str, sums: Counts) -> list[dict[str, Any]]:
    return [
        {
            "generator": generator,
            "category": category.label,
            **instance_scores(tp, fp, fn, t),
            "TP": tp,
            "FP": fp,
            "FN": fn,
            "evaluated_images": images,
            "zero_prediction_images": empty,
            "invalid_prediction_boxes": invalid,
        }
        for category, (tp, fp, fn, images, empty, invalid) in zip(
            ROW_ORDER, sums.tolist(), strict=True
        )
    ]
