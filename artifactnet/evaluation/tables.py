"""Markdown tables, and the mean and spread of several runs: for every page that the package writes.

This module imports nothing of the package, so that any part of it may use it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; a ``|`` in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); None for a single value.

    Raises:
        statistics.StatisticsError: there is no value.
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def mean_spread(values: Sequence[float], digits: int = 3) -> str:
    """``0.812 ± 0.010``: mean and sample standard deviation; no spread for a single value."""
    if not values:
        return ""
    mean, std = mean_std(values)
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")
