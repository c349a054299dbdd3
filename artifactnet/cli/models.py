"""``models``: the models that are here, and their cards."""

from __future__ import annotations

import argparse

from artifactnet.cli.arguments import print_line


def add_models_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``models``."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="print this model's card, instead of the list"
    )


def run_models(args: argparse.Namespace) -> int:
    """Run ``models``; returns the exit code."""
    from artifactnet.models.catalogue import known_models, read_card

    if args.name is not None:
        for line in read_card(args.name).splitlines():
            print_line(line)  # a card of the hub is data
        return 0
    models = known_models()
    width = max((len(model.name) for model in models), default=0)
    for model in models:
        licence = model.licence or "licence: see the card"
        size = f"{model.bytes / 1e6:.1f} MB"
        print_line(f"{model.name:<{width}}  {size:>9}  {licence}, {model.origin}")
        print_line(f"  card: {model.page}")
    return 0
