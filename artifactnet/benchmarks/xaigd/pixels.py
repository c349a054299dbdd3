"""Perceptual artifact detection, scored per pixel from files (X-AIGD, Sec. 3.3).

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
import numpy.typing as npt
from PIL import Image

from artifactnet.benchmarks.xaigd.labels import LabelRow, check_layout, read_labels
from artifactnet.benchmarks.xaigd.tables import (
    ALL,
    ROW_ORDER,
    Counts,
    ScoreTable,
    make_table,
    parallel_map,
)
from artifactnet.data.image_files import is_image
from artifactnet.data.images import MAX_PIXELS, decode_image
from artifactnet.data.masks import rasterize
from artifactnet.metrics.confusion import pixel_scores
from artifactnet.taxonomy import AGNOSTIC, TASKS
from artifactnet.types import ArtifactNetError, UInt8Array

MIN_IMAGES = 200  # per process; fewer take less time than starting it
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class View:
    """Resizing and cropping of ground truth to the size of the predictions; by default none.

    Attributes:
        resize: (height, width) to resize to.
        short_side: length to resize the short side to instead; the long one becomes
            ``int(long * short_side / short)``.
        crop: (height, width) of the centre crop afterwards.
    """

    resize: tuple[int, int] | None = None
    short_side: int | None = None
    crop: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.resize is not None and self.short_side is not None:
            raise ArtifactNetError("resize to a size or by the short side, not both")
        for value in (*(self.resize or ()), *(self.crop or ()), self.short_side):
            if value is not None and value < 1:
                raise ArtifactNetError(f"sizes to resize or crop to must be above 0, not {value}")

    def apply(self, mask: UInt8Array, where: object) -> UInt8Array:
        """The mask, (H, W) uint8, at the size of comparison, by nearest neighbour (public metrics).

        Raises:
            ArtifactNetError: the crop is larger than the mask, or the resized mask has too many
                pixels; the message names ``where``.
        """
        height, width = self._resized(mask.shape[0], mask.shape[1])
        if height * width > MAX_PIXELS:
            raise ArtifactNetError(
                f"{where}: resizing to {width}x{height} exceeds {MAX_PIXELS / 1e6:.0f} megapixels"
            )
        if (height, width) != mask.shape:
            resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
            mask = resized.astype(np.uint8, copy=False)
        if self.crop is None:
            return mask
        rows, columns = self.crop
        if rows > height or columns > width:
            raise ArtifactNetError(
                f"{where}: a crop of {columns}x{rows} is larger than the mask of {width}x{height}"
            )
        top, left = (height - rows) // 2, (width - columns) // 2
        return np.ascontiguousarray(mask[top : top + rows, left : left + columns])

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize is not None:
            return self.resize
        if self.short_side is None:
            return height, width
        side = self.short_side
        if height < width:
            return side, int(width * side / height)
        return int(height * side / width), side


def read_masks(folder: str, size: tuple[int, int], threshold: int) -> BoolArray | None:
    """Union of all PNG masks of one image.

    Args:
        folder: may be missing.
        size: (height, width) every mask must have.
        threshold: pixels above it are predicted.

    Returns:
        (H, W), or None if nothing is predicted: no folder, no file, or no pixel.

    Raises:
        ArtifactNetError: a file is not a readable image, is transparent, or has another size; or
            the folder contains images, but no ``*.png``.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise ArtifactNetError(f"{folder}: must be a folder with the masks of one image") from None
    except OSError as error:
        raise ArtifactNetError(f"{folder:.300}: cannot be read ({error.strerror})") from None
    masks = sorted(name for name in names if name.endswith(".png"))
    others = [] if masks else [n for n in sorted(names) if is_image(os.path.join(folder, n))]
    if others:
        raise ArtifactNetError(f"{os.path.join(folder, others[0])}: masks must be *.png")
    union = np.zeros(size, dtype=np.bool_)
    for name in masks:
        union |= _read_gray(os.path.join(folder, name), size) > threshold
    return union if union.any() else None


def _read_gray(path: str, size: tuple[int, int]) -> UInt8Array:
    """(H, W) gray values; colours by their luminance, 16 bit by their high byte."""
    try:
        with Image.open(path) as image:
            if (image.height, image.width) != size:
                raise ArtifactNetError(
                    f"{path}: the mask is {image.width}x{image.height}, but {size[1]}x{size[0]} "
                    "is expected"
                )
            if image.has_transparency_data:
                if np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                    raise ArtifactNetError(
                        f"{path}: a mask must not be transparent; save it as plain gray"
                    )
            elif image.mode == "L":
                return np.asarray(image)
            rgb = decode_image(image, path)
    except ArtifactNetError:
        raise
    except Exception as error:  # decoders raise many types on damaged files
        raise ArtifactNetError(f"{path}: not a readable image ({error})") from error
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


@dataclass(frozen=True, slots=True)
class PixelTask:
    """Predictions, and how to compare them with the ground truth."""

    root: str  # folder of the predictions
    task: str  # of `TASKS`
    view: View = field(default_factory=View)  # resizing and cropping of the ground truth
    threshold: int = 127  # pixels above it are predicted, 0..255

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ArtifactNetError(f"unknown task {self.task!r}; known: {', '.join(TASKS)}")
        if not 0 <= self.threshold <= 255:
            raise ArtifactNetError(f"the threshold must be from 0 to 255, not {self.threshold}")


def score_pixels(
    labels: Sequence[str | Path], predictions: PixelTask, workers: int = 1
) -> ScoreTable:
    """Score predicted masks against annotated polygons.

    Args:
        labels: parquet files, see `read_labels`.
        predictions: the predictions, and how to compare.
        workers: maximum number of processes, see `parallel_map`.

    Returns:
        columns ``generator, task, category, IoU, PixP, PixR, PixF1, evaluated_images,
        zero_prediction_images``; fractions in [0, 1]. An image is a zero prediction of a row
        if no pixel is predicted: no folder, no mask, or black ones.

    Raises:
        ArtifactNetError: labels or predictions are invalid.
    """
    rows = read_labels(labels)
    warnings = check_layout(predictions.root, predictions.task, rows)
    counts = parallel_map(partial(count_pixels, predictions), rows, workers, MIN_IMAGES)
    lines = partial(_lines, predictions.task)
    return make_table([row.generator for row in rows], counts, lines, warnings)


def count_pixels(predictions: PixelTask, row: LabelRow) -> Counts:
    """Pixels of one image.

    Returns:
        (1, 5) int64, or (7, 5) in the order of the table's rows for fine-grained tasks: true
        positive, false positive and false negative pixels, 1, and 1 if nothing is predicted.

    Raises:
        ArtifactNetError: a polygon or a predicted mask is invalid.
    """
    truth = predictions.view.apply(rasterize(row.labels, row.height, row.width, str(row)), row)
    folder = os.path.join(predictions.root, row.generator)
    size = (truth.shape[0], truth.shape[1])
    if predictions.task == AGNOSTIC:
        predicted = read_masks(os.path.join(folder, row.uid), size, predictions.threshold)
        return np.array([_compare(predicted, truth)], dtype=np.int64)
    lines = []
    for category in ROW_ORDER:
        path = os.path.join(folder, category.label, row.uid)
        predicted = read_masks(path, size, predictions.threshold)
        lines.append(_compare(predicted, truth & np.uint8(category.bit)))
    return np.array(lines, dtype=np.int64)


def _compare(predicted: BoolArray | None, truth: UInt8Array) -> tuple[int, int, int, int, int]:
    positive = int(cv2.countNonZero(truth))
    if predicted is None:
        return 0, 0, positive, 1, 1
    plane = predicted.view(np.uint8)
    hits = int(cv2.countNonZero(cv2.bitwise_and(truth, truth, mask=plane)))
    return hits, int(cv2.countNonZero(plane)) - hits, positive - hits, 1, 0


def _lines(task: str, generator: str, sums: Counts) -> list[dict[str, Any]]:
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
