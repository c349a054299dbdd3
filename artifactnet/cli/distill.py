"""``distill``: a teacher labels the data of a run, then a student learns from it."""

from __future__ import annotations

import argparse

from artifactnet.cli.arguments import add_config


def add_distill_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``distill``."""
    add_config(parser, "distill.teacher=runs/teacher")
    parser.add_argument(
        "--label-only", action="store_true", help="fill the cache of pseudo-labels; train nothing"
    )


def run_distill(args: argparse.Namespace) -> int:
    """Run ``distill``; returns the exit code."""
    from artifactnet import load_config

    config = load_config(args.config, args.overrides)  # user errors first, then the slow import
    from artifactnet.api import distill

    found = distill(config, args.label_only)
    if args.label_only:
        print(f"answers    {found}")
    return 0
