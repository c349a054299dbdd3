"""``experiment``: train, judge and table what one of the paper's tables compares."""

from __future__ import annotations

import argparse
from typing import Any

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
        "fusion-ablation: HEIE Table 5; transfer CONFIG --on A B: HEIE Table 4; cot-ablation "
        "[CONFIG]: HEIE Table 7",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="keys of all trainings, right after NAME: train.epochs=2; of transfer and "
        "cot-ablation the config goes before them",
    )
    parser.add_argument(
        "--on",
        nargs="+",
        metavar="[NAME=]MANIFEST",
        help="transfer: the data sets, two or more; each is trained on, all are judged on",
    )
    parser.add_argument("--seeds", type=natural, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--out", default="runs/experiments", metavar="DIR")
    parser.set_defaults(run=_experiment)


def _experiment(args: argparse.Namespace) -> int:
    from pathlib import Path

    from artifactnet.evaluation.tables import markdown
    from artifactnet.types import ArtifactNetError

    if args.on is not None and args.name != "transfer":
        raise ArtifactNetError("--on is for transfer alone")
    if args.name == "transfer":
        found = _transfer(args)
    elif args.name == "cot-ablation":
        from artifactnet.experiments.cot_ablation import RECIPE, run_cot_ablation

        recipe, overrides = _recipe(args.overrides)
        found = run_cot_ablation(recipe or RECIPE, args.seeds, args.out, overrides)
    else:
        from artifactnet.experiments.run import run_experiment

        found = run_experiment(args.name, args.seeds, args.out, args.overrides)
    print(markdown(found))
    print(f"table in {Path(args.out) / args.name}.md and .json")
    return 0


def _recipe(words: list[str]) -> tuple[str | None, list[str]]:
    """The config that stands before the overrides, if one does, and the overrides."""
    if words and "=" not in words[0]:
        return words[0], words[1:]
    return None, words


def _transfer(args: argparse.Namespace) -> dict[str, Any]:
    from artifactnet.config import load
    from artifactnet.experiments.transfer import named_sets, run_transfer
    from artifactnet.types import ArtifactNetError

    recipe, overrides = _recipe(args.overrides)
    if recipe is None or args.on is None:
        raise ArtifactNetError("transfer needs a config and data: transfer CONFIG --on A B")
    sets = named_sets(args.on)
    first = [*overrides, "data.name=manifest", f"data.root={next(iter(sets.values()))}"]
    if load(recipe, first).mllm.base is not None:
        from artifactnet.vlm.heie.evaluate import evaluate as evaluate_heie
        from artifactnet.vlm.heie.trainer import train as train_heie

        callables: Any = train_heie, evaluate_heie
    else:
        from artifactnet import evaluate, train

        callables = train, evaluate
    return run_transfer(recipe, sets, args.seeds, args.out, overrides, *callables)
