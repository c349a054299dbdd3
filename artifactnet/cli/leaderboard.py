"""``leaderboard``: several models side by side on one page, from their saved predictions."""

from __future__ import annotations

import argparse

from artifactnet.cli import arguments


def add_leaderboard_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``leaderboard``."""
    option = parser.add_argument
    option(
        "predictions",
        nargs="+",
        metavar="NAME=FILE",
        help="a model's name and its predictions.jsonl, as predict writes it; of a model without "
        "probabilities the verdicts count",
    )
    option(
        "--labels",
        required=True,
        metavar="PATH",
        help="which images are fake, and whose: manifest (.jsonl), folder with real/ and fake/, or "
        "public test set",
    )
    option("--out", required=True, metavar="PAGE.html", help="page to write; figures in PAGE.json")
    option("--title", metavar="TEXT", help="of the page")
    arguments.add_value(
        parser,
        "--disagreements",
        arguments.natural,
        12,
        "images to show on which the models differ most (12)",
    )


def run_leaderboard(args: argparse.Namespace) -> int:
    """Run ``leaderboard``; returns the exit code."""
    from artifactnet.explanation.report.leaderboard_files import leaderboard_of_files
    from artifactnet.types import ArtifactNetError

    files: dict[str, str] = {}
    for text in args.predictions:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise ArtifactNetError(f"{text}: give a name and a file, as in mine=predictions.jsonl")
        if name in files:
            raise ArtifactNetError(f"{text}: {name} is given twice; every model needs its own name")
        files[name] = file
    result = leaderboard_of_files(
        files, args.labels, args.out, title=args.title, disagreements=args.disagreements
    )
    arguments.print_warnings(result.notices)
    (condition,) = result.figures["conditions"]
    for name, figures in condition["models"].items():
        area = "" if figures["auc"] is None else f", AUC {figures['auc']:.4f}"
        arguments.print_line(f"{name}: balanced accuracy {figures['balanced_accuracy']:.4f}{area}")
    arguments.print_line(str(result.html))
    return 0
