"""Perceptual artifact detection, scored to the pixel from files (X-AIGD, Sec. 3.3).

True and false pixels are summed over all images before any ratio is taken; the rules are those
of the benchmark's public metric description, the table is that of its own script.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from artifactnet.data.masks import rasterize
from artifactnet.engine.score_labels import LabelRow, read_labels
from artifactnet.engine.score_layout import check_layout
from artifactnet.engine.score_masks import BoolArray, View, read_folder
from artifactnet.engine.score_tables import ALL, ROW_ORDER, Counts, ScoreTable, add_up, for_each
from artifactnet.metrics.scores import pixel_scores
from artifactnet.taxonomy import AGNOSTIC, TASKS
from artifactnet.types import ArtifactNetError, UInt8Array

FEWEST = 200  # images that take longer than a process needs to start (seconds)


@dataclass(frozen=True, slots=True)
class PixelTask:
    """What is asked of every image.

    Attributes:
        root: folder of the predictions.
        task: ``category-agnostic`` or ``fine-grained``.
        view: how ground truth is brought to the size of the predictions.
        threshold: pixels above it are predicted, 0..255.
    """

    root: str
    task: str
    view: View = field(default_factory=View)
    threshold: int = 127

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ArtifactNetError(f"unknown task {self.task!r}; known: {', '.join(TASKS)}")
        if not 0 <= self.threshold <= 255:
            raise ArtifactNetError(f"the threshold must be from 0 to 255, not {self.threshold}")


def score_pixels(labels: Sequence[str | Path], asked: PixelTask, workers: int = 1) -> ScoreTable:
    """Score predicted masks against annotated polygons.

    Args:
        labels: parquet files, see `read_labels`.
        asked: which predictions, and how to compare.
        workers: most processes to use; see `for_each`.

    Returns:
        columns ``generator, task, category, IoU, PixP, PixR, PixF1, evaluated_images,
        zero_prediction_images``; fractions in [0, 1]. An image is a zero prediction of a row
        if not one of its pixels is predicted: no folder, no mask, or black ones.

    Raises:
        ArtifactNetError: labels or predictions cannot be used; the message names the place.
    """
    rows = read_labels(labels)
    warnings = check_layout(asked.root, asked.task, rows)
    counts = for_each(partial(count_pixels, asked), rows, workers, FEWEST)
    tables = [
        _table(name, asked.task, sums) for name, sums in add_up([r.generator for r in rows], counts)
    ]
    return ScoreTable(tables[0], [line for t in tables[1:] for line in t], len(rows), warnings)


def count_pixels(asked: PixelTask, row: LabelRow) -> Counts:
    """Pixels of one image.

    Returns:
        (1, 5) int64, or (7, 5) in the order of the table's rows where categories are asked
        for: true positive, false positive and false negative pixels, 1, and 1 if nothing is
        predicted.

    Raises:
        ArtifactNetError: a polygon or a predicted mask cannot be used.
    """
    truth = asked.view.apply(rasterize(row.labels, row.height, row.width, str(row)), row)
    folder = os.path.join(asked.root, row.generator)
    size = (truth.shape[0], truth.shape[1])
    if asked.task == AGNOSTIC:
        found = read_folder(os.path.join(folder, row.uid), size, asked.threshold)
        return np.array([_compare(found, truth)], dtype=np.int64)
    lines = []
    for category in ROW_ORDER:
        path = os.path.join(folder, category.label, row.uid)
        found = read_folder(path, size, asked.threshold)
        lines.append(_compare(found, truth & np.uint8(category.bit)))
    return np.array(lines, dtype=np.int64)


def _compare(found: BoolArray | None, truth: UInt8Array) -> tuple[int, int, int, int, int]:
    positive = int(cv2.countNonZero(truth))
    if found is None:
        return 0, 0, positive, 1, 1
    plane = found.view(np.uint8)
    hits = int(cv2.countNonZero(cv2.bitwise_and(truth, truth, mask=plane)))
    return hits, int(cv2.countNonZero(plane)) - hits, positive - hits, 1, 0


def _table(generator: str, task: str, sums: Counts) -> list[dict[str, Any]]:
    names = [ALL] if task == AGNOSTIC else [category.label for category in ROW_ORDER]
    return [
        {
            "generator": generator,
            "task": task,
            "category": name,
            **pixel_scores(tp, fp, fn),
            "evaluated_images": images,
            "zero_prediction_images": empty,
        }
        for name, (tp, fp, fn, images, empty) in zip(names, sums.tolist(), strict=True)
    ]
