"""What several subcommands take and say alike."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from artifactnet.inference.inputs import Failure

# argparse has no public name for what `add_subparsers` returns
Commands = argparse._SubParsersAction


def natural(text: str) -> int:
    """An integer of 0 or more.

    Raises:
        argparse.ArgumentTypeError: it is below 0.
        ValueError: it is not an integer.
    """
    return _at_least(0, text)


def positive(text: str) -> int:
    """An integer of 1 or more.

    Raises:
        argparse.ArgumentTypeError: it is below 1.
        ValueError: it is not an integer.
    """
    return _at_least(1, text)


def names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def add_images(parser: argparse.ArgumentParser) -> None:
    """The positional argument of subcommands that look at files.

    Args:
        parser: of a subcommand.
    """
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="files, folders (searched deeply), X-AIGD parquet shards, patterns",
    )


def print_failures(failures: Sequence[Failure]) -> None:
    """List, on standard error, the images that could not be used; nothing where all could."""
    if failures:
        print(f"{len(failures)} could not be used:", file=sys.stderr)
    for failure in failures:
        print(f"  {failure.path}: {failure.reason}", file=sys.stderr)


def _at_least(least: int, text: str) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is below {least}")
    return value
