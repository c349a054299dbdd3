"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
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
    """The positional argument of subcommands that look at files."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="files, folders (searched deeply), X-AIGD parquet shards, patterns",
    )


def print_warnings(warnings: Iterable[str]) -> None:
    """Print, on standard error, what must be known before trusting an answer."""
    for warning in warnings:
        print(f"artifactnet: warning: {warning}", file=sys.stderr)


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


TEXTS = ("generate", "template")


def add_text(parser: argparse.ArgumentParser) -> None:
    """The option that a HEIE on a language model takes."""
    parser.add_argument(
        "--text",
        choices=TEXTS,
        help="of a HEIE on a language model: it writes its explanation (generate, the default of "
        "one that learnt to write), or a fixed text takes its place, which is far faster and "
        "explains nothing (template, the default of one trained with mllm.text=none)",
    )


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """How many images pass through a model together; the predictor knows the default."""
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="images that pass through the model together (default: 8; 1 of a HEIE on a "
        "language model, which takes far more memory)",
    )
