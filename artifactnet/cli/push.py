"""``push``: a detector to the Hugging Face Hub, with a card made of its run's results."""

from __future__ import annotations

import argparse

from artifactnet.cli import arguments


def add_push_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``push``."""
    option = parser.add_argument
    option("model", metavar="RUN_OR_FILE", help="folder of a run, or a .safetensors file")
    option("repository", metavar="OWNER/NAME", help="made if it does not exist")
    option(
        "--runs",
        nargs="+",
        default=[],
        metavar="RUN",
        help="the same training with other seeds, for the mean and spread of the card's figures",
    )
    option("--licence", metavar="ID", help="of the model, as the hub writes it: apache-2.0")
    option("--private", action="store_true", help="only its owners may see the repository")
    option("--revision", metavar="BRANCH", help="to commit to, made if it does not exist (main)")


def run_push(args: argparse.Namespace) -> int:
    """Run ``push``; returns the exit code."""
    from artifactnet import load_model

    done = load_model(args.model, "cpu").push_to_hub(
        args.repository, runs=args.runs, licence=args.licence, private=args.private,
        revision=args.revision,
    )  # fmt: skip
    arguments.print_line(done.url)
    arguments.print_line(f"load it with: artifactnet.load_model({done.address!r})")
    return 0
