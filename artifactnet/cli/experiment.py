"""``experiment``: the trainings of one of the papers' tables, evaluated alike, in one table."""

from __future__ import annotations

import argparse

from artifactnet.cli import arguments


def add_experiment_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``experiment``."""
    option = parser.add_argument
    option(
        "name",
        metavar="NAME",
        help="detection: the five experiments of Table 2; interpretation: Table 13; "
        "fusion-ablation: HEIE Table 5; transfer CONFIG --on A B: HEIE Table 4; cot-ablation "
        "[CONFIG]: HEIE Table 7",
    )
    arguments.add_overrides(
        parser,
        "keys of all trainings, right after NAME: train.epochs=2; of transfer and "
        "cot-ablation the config goes before them",
    )
    option(
        "--on",
        nargs="+",
        metavar="[NAME=]MANIFEST",
        help="transfer: the data sets, two or more; each is trained on, all are evaluated on",
    )
    option("--seeds", type=arguments.natural, nargs="+", default=[0, 1, 2], metavar="N")
    option("--out", default="runs/experiments", metavar="DIR")


def run_experiment(args: argparse.Namespace) -> int:
    """Run ``experiment``; returns the exit code."""
    from pathlib import Path

    from artifactnet.experiments.common import experiment_page
    from artifactnet.types import ArtifactNetError

    name, overrides, recipe = args.name, args.overrides, None
    if name in ("transfer", "cot-ablation") and overrides and "=" not in overrides[0]:
        recipe, *overrides = overrides
    if args.on is not None and name != "transfer":
        raise ArtifactNetError("--on is for transfer alone")
    if name == "transfer":
        from artifactnet.experiments.transfer import named_sets, run_transfer

        if recipe is None or args.on is None:
            raise ArtifactNetError("transfer needs a config and data: transfer CONFIG --on A B")
        found = run_transfer(recipe, named_sets(args.on), args.seeds, args.out, overrides)
    elif name == "cot-ablation":
        from artifactnet.experiments.cot_ablation import RECIPE, run_cot_ablation

        found = run_cot_ablation(recipe or RECIPE, args.seeds, args.out, overrides)
    else:
        from artifactnet.experiments.run import run_experiment

        found = run_experiment(name, args.seeds, args.out, overrides)
    print(experiment_page(found))
    print(f"table in {Path(args.out) / name}.md and .json")
    return 0
