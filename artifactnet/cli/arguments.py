"""Kinds of numbers that options of several subcommands take."""

from __future__ import annotations

import argparse

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


def _at_least(least: int, text: str) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is below {least}")
    return value
