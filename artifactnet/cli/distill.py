"""``distill``: a teacher labels the data of a run, then a student learns from it."""

from __future__ import annotations

import argparse

from artifactnet.cli.arguments import Commands


def add_distill(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    distill = commands.add_parser(
        "distill", parents=[common], help="let a teacher label images, and train a student on them"
    )
    option = distill.add_argument
    option("config", metavar="CONFIG", help="a YAML file, or the name of a recipe; of the student")
    option(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="dotted keys that replace values of the config: distill.teacher=runs/teacher",
    )
    option(
        "--label-only", action="store_true", help="fill the cache of pseudo-labels; train nothing"
    )
    distill.set_defaults(run=_distill)


def _distill(args: argparse.Namespace) -> int:
    from artifactnet import load_config

    config = load_config(args.config, args.overrides)  # user errors first, then the slow import
    from artifactnet.api import distill

    found = distill(config, args.label_only)
    if args.label_only:
        print(f"answers    {found}")
    return 0
