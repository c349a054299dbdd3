"""``score-pixels`` and ``score-instances``: the benchmark's tables from files."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from artifactnet.cli.arguments import add_value, positive, print_warnings
from artifactnet.taxonomy import INSTANCE_COLUMNS, TASKS

if TYPE_CHECKING:
    from artifactnet.benchmarks.xaigd.tables import ScoreTable


def add_score_pixels_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``score-pixels``."""
    option = parser.add_argument
    option(
        "--predictions",
        required=True,
        metavar="DIR",
        help="DIR/{generator}/{uid}/*.png, or DIR/{generator}/{category}/{uid}/*.png",
    )
    option("--task", required=True, choices=TASKS)
    size = parser.add_mutually_exclusive_group()
    pair: dict[str, Any] = {"nargs": 2, "type": positive, "metavar": ("H", "W")}
    size.add_argument("--resize-size", **pair, help="resize the ground truth first")
    size.add_argument(
        "--resize-short-side", type=positive, metavar="S", help="... until its short side is S"
    )
    option("--center-crop", **pair, help="then crop it")
    add_value(parser, "--threshold", int, 127, "pixels above it are predicted")
    _add_files(parser)


def add_score_instances_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``score-instances``."""
    parser.add_argument(
        "--predictions", required=True, metavar="CSV", help=",".join(INSTANCE_COLUMNS)
    )
    add_value(
        parser,
        "--overlap-threshold",
        float,
        0.5,
        "share of a box that must lie on an instance",
        metavar="T",
    )
    _add_files(parser)


def _add_files(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option(
        "--labels",
        required=True,
        nargs="+",
        metavar="FILE.parquet",
        help="annotated rows; needs no images",
    )
    option("--out", required=True, metavar="CSV", help="table of all generators")
    option("--out-per-generator", metavar="CSV", help="table of each generator")
    add_value(
        parser,
        "--workers",
        positive,
        os.cpu_count() or 1,
        "most processes to use; as many as there are cores",
    )


def run_score_pixels(args: argparse.Namespace) -> int:
    """Run ``score-pixels``; returns the exit code."""
    from artifactnet.benchmarks.xaigd.pixels import PixelTask, View, score_pixels
    from artifactnet.benchmarks.xaigd.tables import check_outputs

    check_outputs(args.out, args.out_per_generator)
    resize = tuple(args.resize_size) if args.resize_size else None
    crop = tuple(args.center_crop) if args.center_crop else None
    view = View(resize, args.resize_short_side, crop)
    asked = PixelTask(args.predictions, args.task, view, args.threshold)
    return _finish(score_pixels(args.labels, asked, args.workers), args)


def run_score_instances(args: argparse.Namespace) -> int:
    """Run ``score-instances``; returns the exit code."""
    from artifactnet.benchmarks.xaigd.instances import score_instances
    from artifactnet.benchmarks.xaigd.tables import check_outputs

    check_outputs(args.out, args.out_per_generator)
    table = score_instances(args.labels, args.predictions, args.overlap_threshold, args.workers)
    return _finish(table, args)


def _finish(table: ScoreTable, args: argparse.Namespace) -> int:
    """Write the tables and print the first one."""
    table.write(args.out, args.out_per_generator)
    print_warnings(table.warnings)
    for row in table.overall:
        ratios = [f"{name} {value:.4f}" for name, value in row.items() if isinstance(value, float)]
        print(f"{row['category']:<27} {'  '.join(ratios)}")
    files = [path for path in (args.out, args.out_per_generator) if path]
    print(f"{table.images} images scored; tables in {', '.join(files)}")
    return 0
