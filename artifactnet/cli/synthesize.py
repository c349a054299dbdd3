"""``synthesize``: make data sets."""

from __future__ import annotations

import argparse
import sys

from artifactnet.cli.arguments import add_value, natural, positive, print_line, print_warnings


def add_synthesize_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``synthesize``."""
    option = parser.add_argument
    option("photos", metavar="PHOTOS", help="folder of your photographs")
    option("out", metavar="OUT", help="folder for the data set; must be new")
    option("--seed", type=natural, default=0, metavar="N")
    add_value(parser, "--per-photo", positive, 1, "fakes per photograph")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--size", type=positive, default=512, metavar="PIXELS", help="side of square crops"
    )
    size.add_argument("--full-size", action="store_true", help="keep shape and resolution instead")
    add_value(parser, "--test-fraction", float, 0.2, "photographs kept for testing", metavar="X")
    add_value(parser, "--val-fraction", float, 0.1, "... and for validation", metavar="X")
    option("--categories", nargs="+", default=(), metavar="LABEL", help="kinds of artifacts; all")


def run_synthesize(args: argparse.Namespace) -> int:
    """Run ``synthesize``; returns the exit code."""
    from pathlib import Path

    from artifactnet import synthesize

    result = synthesize(
        Path(args.photos), Path(args.out), seed=args.seed, per_photo=args.per_photo,
        size=None if args.full_size else args.size, test_fraction=args.test_fraction,
        val_fraction=args.val_fraction, categories=args.categories,
    )  # fmt: skip
    counts = ", ".join(f"{count} {split}" for split, count in result.counts.items())
    print(f"{result.photographs} photographs became {counts} pairs in {result.out}")
    print(f"train on them: artifactnet train dinov2_align data.name=xaigd data.root={result.out}")
    print_warnings(result.warnings)
    if result.skipped:
        print(f"{len(result.skipped)} could not be used:", file=sys.stderr)
    for line in result.skipped:
        print_line(f"  {line}", sys.stderr)
    return 0
