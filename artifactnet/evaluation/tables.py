"""Markdown tables, and the mean and spread of several runs: for every page that the package writes.

This module imports nothing of the package, so that any part of it may use it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table.

    Args:
        header: names of the columns.
        rows: cells of each row, as many as there are columns.
    """
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); None for a single value.

    Raises:
        statistics.StatisticsError: there is no value.
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def mean_spread(values: Sequence[float], digits: int = 3) -> str:
    """``0.812 ± 0.010``: mean and sample standard deviation; no spread for a single value.

    Args:
        values: one per seed or repetition; none give an empty text.
        digits: after the decimal point.
    """
    if not values:
        return ""
    mean, std = mean_std(values)
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


# column -> field of `artifactnet.metrics.scores.verdict_scores`
AUTHENTICITY = {"BA": "balanced_accuracy", "F1": "f1", "AUC": "auc"}
PIXELS = ("IoU", "PixP", "PixR", "PixF1")
HEATMAPS = ("MSE", "KLD", "CC")  # fields of `artifactnet.metrics.saliency.SaliencyMetric`
_DIGITS = {"MSE": 5, "MSE GT=0": 5}  # as in the papers; three otherwise


def spread(
    runs: Sequence[Mapping[str, float]], columns: Sequence[str]
) -> dict[str, dict[str, float | None] | None]:
    """Mean and sample standard deviation of every column.

    Args:
        runs: one dictionary per seed; a column that a kind of run does not have is missing in all.
        columns: names of the columns.

    Returns:
        For each column ``mean`` and ``std`` (None for a single seed), or None without figures.
    """
    found: dict[str, dict[str, float | None] | None] = {}
    for column in columns:
        values = [run[column] for run in runs if run.get(column) is not None]
        found[column] = None
        if values:
            std = statistics.stdev(values) if len(values) > 1 else None
            found[column] = {"mean": statistics.fmean(values), "std": std}
    return found


def rows(
    titles: Mapping[str, str],
    values: Mapping[tuple[str, int], Mapping[str, float]],
    columns: Sequence[str],
) -> list[dict[str, Any]]:
    """Rows of an experiment for `markdown`.

    Args:
        titles: key -> title, in the order of the table.
        values: (key, seed) -> figures.
        columns: names of the figures.
    """
    found = []
    for key, title in titles.items():
        seeds = {str(seed): dict(each) for (its, seed), each in values.items() if its == key}
        figures = spread(list(seeds.values()), columns)
        found.append(
            {"key": key, "title": title, "method": None, "seeds": seeds, "spread": figures}
        )
    return found


def markdown(experiment: Mapping[str, Any]) -> str:
    """One row per training, mean and spread over seeds, then one row per seed."""
    columns = experiment["columns"]
    seeds = ", ".join(str(seed) for seed in experiment["seeds"])
    lines = [
        f"# {experiment['title']}",
        "",
        f"Seeds {seeds}; mean ± sample standard deviation. Overrides: "
        f"{', '.join(experiment['overrides']) or 'none'}.",
        "",
        *_head(["training", *columns]),
    ]
    for row in experiment["rows"]:
        cells = [_summary(column, row["spread"][column]) for column in columns]
        lines.append(_line([_title(row), *cells]))
    lines += ["", *_head(["training", "seed", *columns])]
    for row in experiment["rows"]:
        for seed, values in row["seeds"].items():
            cells = [_number(column, values.get(column)) for column in columns]
            lines.append(_line([_title(row), seed, *cells]))
    return "\n".join(lines) + "\n"


def _title(row: Mapping[str, Any]) -> str:
    return f"{row['title']} ({row['method']})" if row["method"] else str(row["title"])


def _summary(column: str, value: Mapping[str, float | None] | None) -> str:
    if value is None:
        return ""
    tail = "" if value["std"] is None else f" ± {_number(column, value['std'])}"
    return f"{_number(column, value['mean'])}{tail}"


def _number(column: str, value: float | None) -> str:
    return "" if value is None else f"{value:.{_DIGITS.get(column, 3)}f}"


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), "|" + "---|" * len(names)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
