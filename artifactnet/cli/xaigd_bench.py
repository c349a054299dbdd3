"""``benchmark-xaigd``: language models on X-AIGD (X-AIGD, App. C)."""

from __future__ import annotations

import argparse
from typing import Any

from artifactnet.cli import arguments
from artifactnet.cli.qreal_bench import add_answerer, open_answerer


def add_benchmark_xaigd_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``benchmark-xaigd``."""
    option = parser.add_argument
    option(
        "task",
        choices=("presence", "judgment", "masks", "instances"),
        help="presence: does an image show each category (Table 9); judgment: real or fake (Table "
        "10); masks: a folder of masks (Table 11); instances: boxes with categories (Table 12)",
    )
    option(
        "--labels",
        required=True,
        nargs="+",
        metavar="FILE.parquet",
        help="annotated rows (labeled_test-*); with images if a model is asked",
    )
    option("--out", required=True, metavar="DIR", help="folder for answers and tables")
    option("--real", metavar="DIR", help="judgment: folder of the photographs (file stem = uid)")
    option("--model", metavar="MODEL", help="name or folder of a checkpoint, or folder of a run")
    option(
        "--answers",
        metavar="FILE.jsonl",
        help='instead of a model: lines {"generator", "uid", "answer"}, of presence also '
        '"category"; photographs have the generator real',
    )
    option(
        "--form",
        choices=("general", "fakevlm", "fakereasoning"),
        default="general",
        help="judgment: how the model is asked, and its answer read (general)",
    )
    option("--question", metavar="TEXT", help="judgment: ask this instead")
    option(
        "--coordinates",
        choices=("image", "thousandths"),
        help="instances: what the numbers of a file's answers mean that have no input_size",
    )
    option(
        "--threshold-inclusive",
        action="store_true",
        help="instances: a share of exactly 0.5 of a box is enough, as in the paper's text",
    )
    option(
        "--predictions",
        metavar="DIR",
        help="masks: as of score-pixels --task category-agnostic; real/UID for photographs",
    )
    add_answerer(parser)


def run_benchmark_xaigd(args: argparse.Namespace) -> int:
    """Run ``benchmark-xaigd``; returns the exit code."""
    from artifactnet.types import ArtifactNetError
    from artifactnet.vlm.xaigd.baselines import run_baseline, run_masks
    from artifactnet.vlm.xaigd.pages import page

    results: dict[str, Any]
    if (args.task == "masks") != (args.predictions is not None):
        raise ArtifactNetError("--predictions is for masks, and masks needs it")
    if args.task == "masks":
        results = run_masks(args.labels, args.predictions, args.out)
    else:
        results = run_baseline(
            args.task,
            args.labels,
            args.out,
            answerer=None if args.answers is not None else open_answerer(args),
            answers=args.answers,
            real=args.real,
            form=args.form,
            question=args.question,
            unit=args.coordinates,
            inclusive=args.threshold_inclusive,
            batch_size=args.batch_size,
        )
    arguments.print_warnings(results["warnings"])
    for line in page(results).splitlines():
        if not line.startswith("WARNING: "):
            arguments.print_line(line)
    return 0
