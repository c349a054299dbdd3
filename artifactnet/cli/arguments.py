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
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def positive(text: str) -> int:
    """An integer of 1 or more.

    Raises:
        argparse.ArgumentTypeError: it is below 1.
        ValueError: it is not an integer.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value
