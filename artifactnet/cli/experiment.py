"""``experiment``: train, judge and table what one of the paper's tables compares."""

from __future__ import annotations

import argparse

from artifactnet.cli.arguments import Commands, natural


def add_experiment(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand.

    Args:
        commands: what ``add_subparsers`` returned.
        common: parent parser with the options that every subcommand takes.
    """
    parser = commands.add_parser(
        "experiment",
        parents=[common],
        help="several trainings with several seeds in one table; goes on after an interruption",
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        help="detection: the five experiments of Table 2; interpretation: Table 13; "
        "fusion-ablation: HEIE Table 5",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="keys of all trainings, right after NAME: train.epochs=2",
    )
    parser.add_argument("--seeds", type=natural, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--out", default="runs/experiments", metavar="DIR")
    parser.set_defaults(run=_experiment)


def _experiment(args: argparse.Namespace) -> int:
    from pathlib import Path

    from artifactnet.experiments.run import run_experiment
    from artifactnet.experiments.table import markdown

    found = run_experiment(args.name, args.seeds, args.out, args.overrides)
    print(markdown(found))
    print(f"table in {Path(args.out) / args.name}.md and .json")
    return 0
