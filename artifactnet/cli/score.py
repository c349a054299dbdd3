"""``score-*``: tables from files.

``score-pixels`` and ``score-instances`` are those of X-AIGD, ``score-answers``,
``score-preference`` and ``score-annotators`` those of FakeXplainer.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifactnet.cli.arguments import add_value, positive, print_line, print_warnings, share
from artifactnet.files import write_json, write_text
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


def add_score_answers_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``score-answers``."""
    parser.add_argument(
        "answers", metavar="ANSWERS.jsonl", help="what evaluate wrote about a FakeXplainer"
    )
    parser.add_argument(
        "--groups",
        metavar="FILE.json",
        help='{"sdxl": "Diffusion", ...}: a row for each group of generators',
    )
    parser.add_argument("--out", metavar="DIR", help="also write results.json and .md there")


def add_score_preference_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``score-preference``."""
    parser.add_argument(
        "votes",
        metavar="VOTES.jsonl",
        help='lines {"image", "a", "b", "choice", "voter"}; a and b name two systems, choice is '
        "a, b or neutral",
    )
    parser.add_argument("--out", metavar="DIR", help="also write preference.json and .md there")


def add_score_annotators_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``score-annotators``."""
    option = parser.add_argument
    option(
        "work",
        metavar="WORK.jsonl",
        help='lines {"annotator", "image", "regions", "tags"}, the last two as in a manifest; '
        '"control": true requires that CONTROLS has the image',
    )
    option(
        "--controls",
        required=True,
        metavar="CONTROLS.jsonl",
        help='known answers: lines {"image", "regions", "tags"}',
    )
    add_value(parser, "--least-iou", share, 0.2, "of an annotator who is kept (0.2)", metavar="X")
    add_value(
        parser, "--least-tags", share, 1 / 3, "least agreement of tags, likewise (1/3)", metavar="X"
    )
    option("--out", metavar="DIR", help="also write annotators.json and .md there")


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


def run_score_answers(args: argparse.Namespace) -> int:
    """Run ``score-answers``; returns the exit code."""
    from artifactnet.vlm.fakexplainer.evaluate import score_answers
    from artifactnet.vlm.fakexplainer.pages import terminal

    results = score_answers(args.answers, args.groups, args.out)
    print_warnings(results["data_warnings"])
    for line in terminal(results).splitlines():
        print_line(line)
    return 0


def run_score_preference(args: argparse.Namespace) -> int:
    """Run ``score-preference``; returns the exit code."""
    from artifactnet.benchmarks.fakexplainer.preference import preference_page, score_preference

    result = score_preference(args.votes)
    return _finish_page("preference", result, preference_page(result), args.out)


def run_score_annotators(args: argparse.Namespace) -> int:
    """Run ``score-annotators``; returns the exit code."""
    from artifactnet.benchmarks.fakexplainer.annotators import annotators_page, score_annotators

    result = score_annotators(args.work, args.controls, args.least_iou, args.least_tags)
    return _finish_page("annotators", result, annotators_page(result), args.out)


def _finish_page(name: str, result: dict[str, Any], page: str, out: str | None) -> int:
    """Print a page; write it, and what it was made of, into the folder ``out``."""
    print_warnings(result["warnings"])
    for line in page.splitlines():  # which may hold names from data
        print_line(line)
    if out is not None:
        write_json(Path(out) / f"{name}.json", result)
        write_text(Path(out) / f"{name}.md", page)
        print_line(f"table in {Path(out) / name}.md and .json")
    return 0


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
