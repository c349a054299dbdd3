"""Instance scoring: the package's code beside a straightforward form of the same rules."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np

from artifactnet.benchmarks.xaigd.instances import ImageBoxes, count_instances
from artifactnet.benchmarks.xaigd.labels import LabelRow
from artifactnet.benchmarks.xaigd.tables import ROW_ORDER, Counts, parallel_map
from artifactnet.cli.arguments import add_value, positive
from artifactnet.data.masks import parse_label
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import UInt8Array
from perf.harness import (
    add_report_options,
    check_out,
    check_setting,
    make_report,
    print_forms,
    summary,
    time_side_by_side,
    write_report,
)

Image = tuple[LabelRow, ImageBoxes]
THRESHOLD = 0.5
STRAIGHTFORWARD = "straightforward"
VECTORISED = "vectorised"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    option = parser.add_argument
    option("--images", type=positive, default=300, metavar="N")
    add_value(parser, "--size", positive, 1024, "their side", metavar="PIXELS")
    add_value(parser, "--polygons", positive, 6, "in each image")
    add_value(parser, "--boxes", positive, 20, "in each image")
    add_value(parser, "--workers", positive, 1, "also time N processes")
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run, print and write the report."""
    check_out(args.out)
    report = benchmark_metrics(
        images=args.images, size=args.size, polygons=args.polygons, boxes=args.boxes,
        repeats=args.repeats, workers=args.workers,
    )  # fmt: skip
    write_report(args.out, report)
    print_forms(report["forms"])
    print(f"compared with the {report['baseline']} form; all give the same numbers")
    return 0


def benchmark_metrics(
    images: int = 300,
    size: int = 1024,
    polygons: int = 6,
    boxes: int = 20,
    repeats: int = 5,
    workers: int = 1,
) -> dict[str, Any]:
    """Time instance scoring against the straightforward form.

    Args:
        images: number of images.
        size: side of each, pixels.
        polygons: annotated in each.
        boxes: predicted in each.
        repeats: how often each form is timed.
        workers: processes of an additional run, if above 1.

    Returns:
        See `perf.harness.make_report`; ``forms`` holds a `summary` each.

    Raises:
        ArtifactNetError: a number below 1, or the forms do not agree in their numbers.
    """
    setting = {"images": images, "size": size, "polygons": polygons, "boxes": boxes}
    check_setting({**setting, "repeats": repeats, "workers": workers})
    times = time_side_by_side(make_cases(workers=workers, **setting), repeats)
    forms = {form: summary(times, form, STRAIGHTFORWARD) for form in times}
    return make_report("metrics", {**setting, "repeats": repeats}, STRAIGHTFORWARD, forms=forms)


def make_cases(
    images: int, size: int, polygons: int, boxes: int, workers: int
) -> dict[str, Callable[[], list[Counts]]]:
    """Forms by name; all count the same images. Several processes include their start."""
    data = [random_image(seed, size, polygons, boxes) for seed in range(images)]
    ours = partial(count_instances, THRESHOLD)
    result: dict[str, Callable[[], list[Counts]]] = {
        STRAIGHTFORWARD: lambda: [straightforward(THRESHOLD, image) for image in data],
        VECTORISED: lambda: parallel_map(ours, data, workers=1, min_items=1),
    }
    if workers > 1:
        name = f"{VECTORISED}, {workers} processes"
        result[name] = lambda: parallel_map(ours, data, workers=workers, min_items=1)
    return result


def random_image(seed: int, size: int, polygons: int, boxes: int) -> Image:
    """A random annotation, and boxes of which about half lie on it.

    Polygons have 8 to 40 corners at fractional places and radii from 2 % to 20 % of the
    image's side; some reach over its edge. Categories are drawn evenly.
    """
    rng = np.random.default_rng(seed)
    labels: list[dict[str, Any]] = []
    boxes_of_image = ImageBoxes("random")
    centres = []
    for _ in range(polygons):
        category = CATEGORIES[rng.integers(len(CATEGORIES))]
        centre, radius = rng.uniform(0, size, 2), size * 0.02 * 10 ** rng.uniform(0, 1)
        angles = np.sort(rng.uniform(0, 2 * math.pi, rng.integers(8, 41)))
        radii = radius * rng.uniform(0.6, 1.0, len(angles))
        points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        labels.append({"label": category.label, "points": points.tolist()})
        centres.append((category, centre, radius))
    for _ in range(boxes):
        category, centre, radius = centres[rng.integers(len(centres))]
        if rng.random() < 0.5:  # anywhere, of any category
            category = CATEGORIES[rng.integers(len(CATEGORIES))]
            centre = rng.uniform(0, size, 2)
        half = radius * rng.uniform(0.3, 1.2, 2)
        low, high = np.clip([centre - half, centre + half], -2.0, size)  # a few are invalid
        boxes_of_image.boxes.setdefault(category.index, []).append((*low.tolist(), *high.tolist()))
    return LabelRow("random", str(seed), size, size, labels, "random"), boxes_of_image


def straightforward(t: float, image: Image) -> Counts:
    """The baseline: one mask of the image's size for every instance and every box.

    Draws once per category and makes each mask once, so that `count_instances` gains only from
    smaller masks and fewer comparisons.

    Returns:
        as `count_instances`.
    """
    row, predicted = image
    lines = np.zeros((len(ROW_ORDER), 6), dtype=np.int64)
    for line, category in zip(lines, ROW_ORDER, strict=True):
        union = np.zeros((row.height, row.width), dtype=np.uint8)
        for label in row.labels:
            if label["label"] == category.label:
                _, points = parse_label(label, str(row))
                np.clip(points, 0, (row.width - 1, row.height - 1), out=points)
                cv2.fillPoly(union, [points], (1,))
        instances = _instances(union)
        boxes = predicted.boxes.get(category.index, [])
        matched = np.zeros((len(boxes), len(instances)), dtype=np.bool_)
        invalid = 0
        for i, (x_min, y_min, x_max, y_max) in enumerate(boxes):
            mask = np.zeros_like(union)
            if 0 <= x_min < x_max <= row.width and 0 <= y_min < y_max <= row.height:
                mask[int(y_min) : int(y_max), int(x_min) : int(x_max)] = 1
            area = np.count_nonzero(mask)
            invalid += area == 0
            for k, instance in enumerate(instances):
                matched[i, k] = area > 0 and np.count_nonzero(mask & instance) / area > t
        tp = int(matched.any(axis=0).sum())
        fp = int((~matched.any(axis=1)).sum())
        line[:] = tp, fp, len(instances) - tp, 1, not boxes, invalid
    return lines


def _instances(union: UInt8Array) -> list[UInt8Array]:
    linked = cv2.dilate(union, np.ones((5, 5), dtype=np.uint8))
    count, labels = cv2.connectedComponents(linked, connectivity=8)
    return [(labels == index).astype(np.uint8) & union for index in range(1, count)]
