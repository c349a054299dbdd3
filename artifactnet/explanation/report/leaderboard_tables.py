"""Tables of a leaderboard as texts; figures as `leaderboard.write_leaderboard` makes them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from artifactnet.explanation.report.tables import NOTHING, Table


def overview_tables(figures: Mapping[str, Any]) -> list[Table]:
    """The models over all conditions, and each condition by model."""
    conditions, models = figures["conditions"], figures["models"]
    rows = []
    for name in models:
        own = [c for c in conditions if name in c["models"]]
        scores = [c["models"][name]["balanced_accuracy"] for c in own]
        areas = [a for c in own if (a := c["models"][name]["auc"]) is not None]
        worst = min(own, key=lambda c: c["models"][name]["balanced_accuracy"])
        rows.append(
            (
                name,
                _number(statistics.fmean(scores)),
                _number(min(scores)),
                worst["name"],
                _number(statistics.fmean(areas) if areas else None),
                f"{len(own)} of {len(conditions)}",
            )
        )
    header = ("Model", "balanced accuracy", "lowest", "lowest in", "AUC", "conditions")
    tables = [Table("Models, means over conditions", header, tuple(rows))]
    for key, caption in (("balanced_accuracy", "Balanced accuracy"), ("auc", "AUC")):
        cells = tuple(
            (c["name"], *(_number(c["models"].get(name, {}).get(key)) for name in models))
            for c in conditions
        )
        tables.append(Table(f"{caption} by condition", ("Condition", *models), cells))
    return tables


def condition_tables(condition: Mapping[str, Any]) -> list[Table]:
    """The models in one condition, and each generator by model."""
    found = condition["models"]
    rows = tuple(
        (
            name,
            _number(one["balanced_accuracy"]),
            _number(one["auc"]),
            _with_interval(one["real_accuracy"], one["real_interval"]),
            _with_interval(one["fake_accuracy"], one["fake_interval"]),
            _number(one["f1"]),
        )
        for name, one in found.items()
    )
    header = ("Model", "balanced accuracy", "AUC", "real called real", "fakes called fake", "F1")
    first = next(iter(found.values()))
    note = f"; {first['note']}" if first["note"] else ""
    caption = (
        f"Models on {condition['real']} real and {condition['fake']} fake images, with 95 % "
        f"intervals{note}"
    )
    return [Table(caption, header, rows), *_generator_tables(found)]


def percent(share: float | None) -> str:
    """A share that is never rounded to a certainty that a model did not state."""
    if share is None:
        return NOTHING
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def _generator_tables(models: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    groups = list(zip(*(one["generators"] for one in models.values()), strict=True))
    header = ("Images", "count", *models)
    rows = tuple(
        (
            group[0]["name"],
            str(group[0]["images"]),
            *(_with_interval(one["accuracy"], one["interval"]) for one in group),
        )
        for group in groups
    )
    tables = [Table("Share with the right verdict, with 95 % intervals", header, rows)]
    areas = tuple(
        (group[0]["name"], str(group[0]["images"]), *(_number(one["auc"]) for one in group))
        for group in groups
        if any(one["auc"] is not None for one in group)
    )
    if len(areas) > 1:  # of one generator it stands above
        tables.append(Table("AUC of each generator's fakes against all real", header, areas))
    return tables


def _with_interval(share: float, interval: Sequence[float] | None) -> str:
    if interval is None:  # no image
        return NOTHING
    low, high = interval
    return f"{share:.3f} ({low:.3f} to {high:.3f})"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"
