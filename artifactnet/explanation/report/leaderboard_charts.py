"""Charts of a leaderboard; figures as `leaderboard.write_leaderboard` makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from artifactnet.explanation.report.charts import (
    GRAY,
    MAX_ROWS,
    Chart,
    Plan,
    draw_bars,
    draw_chart,
    short_label,
    tall,
)
from artifactnet.metrics.calibration import RocPoint
from artifactnet.names import visible

# told apart on a light and on a dark page
COLORS = (
    *("#3c82c8", "#d9730d", "#2f9460", "#a662cf"),
    *("#d64a54", "#1691a0", "#94801f", "#d0518f"),
)
_LINES = ("-", "--", ":", "-.")  # beyond eight models
_LINE = 0.22  # inches of a name in a legend


class _Style(NamedTuple):
    color: str
    line: str


def condition_charts(
    condition: Mapping[str, Any],
    curves: Mapping[str, Sequence[RocPoint]],
    models: Sequence[str],
    number: int,
) -> list[Chart]:
    """ROC curves, if there are real and fake images, and right verdicts by generator.

    Args:
        condition: its figures.
        curves: of the models that have probabilities; the others are points.
        models: of all conditions; a model has one colour on the whole page.
        number: of the condition, for names that are unique on a page.
    """
    found = condition["models"]
    styles = {
        name: _Style(COLORS[k % len(COLORS)], _LINES[k // len(COLORS) % len(_LINES)])
        for k, name in enumerate(models)
    }
    charts = [draw_chart(f"generators-{number}", _generators(found, styles), png=False)]
    if condition["real"] and condition["fake"]:
        charts.insert(0, draw_chart(f"roc-{number}", _roc(found, curves, styles), png=False))
    return charts


def _roc(
    models: Mapping[str, Mapping[str, Any]],
    curves: Mapping[str, Sequence[RocPoint]],
    styles: Mapping[str, _Style],
) -> Plan:
    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
        for name, one in models.items():
            color, line = styles[name]
            label = f"{'verdicts' if one['auc'] is None else format(one['auc'], '.3f')}  "
            label += short_label(name)
            here = 1 - one["real_accuracy"], one["fake_accuracy"]
            if name in curves:
                points = [(point.fpr, point.tpr) for point in curves[name]]
                axes.plot(*zip(*points, strict=True), color=color, linestyle=line, label=label)
                axes.plot(*here, "o", color=color, clip_on=False)
            else:
                axes.plot(*here, "D", color=color, clip_on=False, label=label)
        axes.set(xlabel="real images called fake", ylabel="fakes called fake", aspect="equal")
        axes.set(xlim=(0, 1), ylim=(0, 1.01))
        _legend(axes)

    areas = {
        name: "verdicts only" if one["auc"] is None else f"AUC {one['auc']:.3f}"
        for name, one in models.items()
    }
    words = "; ".join(
        f"{visible(name)}: {areas[name]}, {one['fake_accuracy']:.3f} of the fakes and "
        f"{1 - one['real_accuracy']:.3f} of the real images called fake"
        for name, one in models.items()
    )
    description = f"By model, with the area under its curve and its verdicts as a mark. {words}."
    return Plan("ROC curves", description, draw, 3.8 + _LINE * len(models))


def _generators(models: Mapping[str, Mapping[str, Any]], styles: Mapping[str, _Style]) -> Plan:
    every = next(iter(models.values()))["generators"]
    most = max(1, 2 * MAX_ROWS // len(models))
    largest = sorted(every, key=lambda row: -row["images"])[:most]
    shown = [k for k, row in enumerate(every) if row in largest]
    names = [every[k]["name"] for k in shown]
    thickness = 0.8 / len(models)

    def draw(axes: Any) -> None:
        for place, (model, one) in enumerate(models.items()):
            shift = (place - (len(models) - 1) / 2) * thickness
            values = [one["generators"][k]["accuracy"] for k in shown]
            # a legend leaves out what begins with an underscore
            label = f" {short_label(model)}"
            draw_bars(axes, names, values, styles[model].color, shift, thickness, label)
        axes.set(xlabel="share with the right verdict", xlim=(0, 1))
        _legend(axes)

    def shares(k: int) -> str:
        return ", ".join(
            f"{visible(name)} {one['generators'][k]['accuracy']:.3f}"
            for name, one in models.items()
        )

    words = "; ".join(
        f"{visible(every[k]['name'])} ({every[k]['images']} images): {shares(k)}" for k in shown
    )
    left_out = len(every) - len(shown)
    more = f" The {left_out} with fewest images are left out." if left_out else ""
    height = tall(len(shown) * max(1, len(models) // 2)) + _LINE * len(models)
    return Plan("Right verdicts by generator", f"{words}.{more}", draw, height)


def _legend(axes: Any) -> None:
    """Below the axes, where it covers no data and every name has a line."""
    axes.figure.legend(loc="outside lower left")
