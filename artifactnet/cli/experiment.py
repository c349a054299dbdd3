"""``experiment``: the trainings of one of the papers' tables, evaluated alike, in one table."""

from __future__ import annotations

import argparse

from artifactnet.cli import arguments
from artifactnet.cli.qreal_bench import JUDGES


def add_experiment_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``experiment``."""
    option = parser.add_argument
    option(
        "name",
        metavar="NAME",
        help="detection: the five experiments of Table 2; interpretation: Table 13; "
        "fusion-ablation: HEIE Table 5; transfer CONFIG --on A B: HEIE Table 4; cot-ablation "
        "[CONFIG]: HEIE Table 7; alignment [CONFIG]: with and without attention "
        "alignment, compared seed by seed; folds CONFIG: cross-validation of a config; "
        "fakexplainer-ablation: FakeXplainer Table 4; qreal-strategies: strategies 2 and 3 of "
        "Q-Real Table 4 (1, a chain of three models, is not part of it)",
    )
    arguments.add_overrides(
        parser,
        "keys of all trainings, right after NAME: train.epochs=2; of transfer, cot-ablation, "
        "alignment and folds the config goes before them",
    )
    option(
        "--on",
        nargs="+",
        metavar="[NAME=]MANIFEST",
        help="transfer: the data sets, two or more; each is trained on, all are evaluated on",
    )
    option(
        "--seeds",
        type=arguments.natural,
        nargs="+",
        metavar="N",
        help="default: 0 1 2; of alignment 0 1 2 3 4",
    )
    arguments.add_value(
        parser,
        "--faithfulness",
        arguments.natural,
        None,
        "alignment: deletion and insertion curves of N test fakes (40; 0: none)",
    )
    arguments.add_value(parser, "--folds", arguments.positive, None, "folds: how many (4)")
    option(
        "--then",
        metavar="CONFIG",
        help="folds: a second config, trained in every fold from the model of the first",
    )
    arguments.add_judge_endpoint(parser, JUDGES)
    option("--out", default="runs/experiments", metavar="DIR")


def run_experiment(args: argparse.Namespace) -> int:
    """Run ``experiment``; returns the exit code."""
    from pathlib import Path

    from artifactnet.experiments.common import experiment_page
    from artifactnet.types import ArtifactNetError

    name, overrides, recipe = args.name, args.overrides, None
    seeds = [0, 1, 2] if args.seeds is None else args.seeds
    if (
        name in ("transfer", "cot-ablation", "alignment", "folds")
        and overrides
        and "=" not in overrides[0]
    ):
        recipe, *overrides = overrides
    if args.on is not None and name != "transfer":
        raise ArtifactNetError("--on is for transfer alone")
    judge = arguments.open_judge(args)
    if judge is not None and name != "qreal-strategies":
        raise ArtifactNetError("--judge-url and --judge-model are for qreal-strategies alone")
    if name == "folds":
        return _run_folds(args, recipe, overrides)
    if args.folds is not None or args.then is not None:
        raise ArtifactNetError("--folds and --then are for folds alone")
    if args.faithfulness is not None and name != "alignment":
        raise ArtifactNetError("--faithfulness is for alignment alone")
    if name == "transfer":
        from artifactnet.experiments.transfer import named_sets, run_transfer

        if recipe is None or args.on is None:
            raise ArtifactNetError("transfer needs a config and data: transfer CONFIG --on A B")
        found = run_transfer(recipe, named_sets(args.on), seeds, args.out, overrides)
    elif name == "cot-ablation":
        from artifactnet.experiments.cot_ablation import RECIPE, run_cot_ablation

        found = run_cot_ablation(recipe or RECIPE, seeds, args.out, overrides)
    elif name == "fakexplainer-ablation":
        from artifactnet.experiments.fakexplainer_ablation import run_fakexplainer_ablation

        found = run_fakexplainer_ablation(seeds, args.out, overrides)
    elif name == "qreal-strategies":
        from artifactnet.experiments.qreal_strategies import run_qreal_strategies

        found = run_qreal_strategies(seeds, args.out, overrides, judge)
    elif name == "alignment":
        from artifactnet.experiments.alignment import (
            FAITHFULNESS_IMAGES,
            RECIPE,
            SEEDS,
            run_alignment,
        )

        images = FAITHFULNESS_IMAGES if args.faithfulness is None else args.faithfulness
        seeds = list(SEEDS) if args.seeds is None else seeds
        found = run_alignment(recipe or RECIPE, seeds, args.out, overrides, images)
    else:
        from artifactnet.experiments.run import run_experiment

        found = run_experiment(name, seeds, args.out, overrides)
    print(experiment_page(found))
    print(f"table in {Path(args.out) / name}.md and .json")
    return 0


def _run_folds(args: argparse.Namespace, recipe: str | None, overrides: list[str]) -> int:
    from pathlib import Path

    from artifactnet.experiments.folds import FOLDS, folds_page, run_folds
    from artifactnet.types import ArtifactNetError

    if recipe is None:
        raise ArtifactNetError("folds needs a config: folds CONFIG")
    if args.seeds is not None or args.faithfulness is not None:
        raise ArtifactNetError("folds takes no --seeds and no --faithfulness; seed=N draws others")
    folds = FOLDS if args.folds is None else args.folds
    found = run_folds(recipe, args.out, overrides, folds, args.then)
    print(folds_page(found))
    print(f"table in {Path(args.out) / 'folds'}.md and .json")
    return 0
