"""Pictures of experiments: one point per run, and curves with their spread."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from artifactnet.files import atomic_path

_COLORS = ("#3c82c8", "#d9730d", "#2a9d6f", "#a05195")
_STYLE = {
    "text.parse_math": False,  # names from data are no formulas
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_PANEL = (4.2, 3.2)  # inches
_DPI = 130


def write_points(path: Path, table: Mapping[str, Any], columns: Sequence[str]) -> None:
    """Draw columns of a table side by side: a row each, a point per seed, a bar at the mean.

    Args:
        path: the PNG.
        table: see `artifactnet.experiments.common.write_table`.
        columns: those to draw; figures without a value are left out.
    """
    rows = table["rows"]

    def draw(axes: Any, column: str) -> None:
        for place, row in enumerate(rows):
            values = [
                v for figures in row["seeds"].values() if (v := figures.get(column)) is not None
            ]
            if values:
                mean = row["spread"][column]["mean"]
                axes.plot([mean, mean], [place - 0.3, place + 0.3], color=_COLORS[0], linewidth=2.5)
                axes.plot(
                    values, [place] * len(values), "o", color=_COLORS[1], alpha=0.7, markersize=4
                )
        axes.set(yticks=range(len(rows)), yticklabels=[row["title"] for row in rows], xlabel=column)
        axes.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top, in panels that share the axis
        axes.grid(axis="x", alpha=0.3)

    _write(path, columns, draw, share_y=True)


def write_curves(
    path: Path,
    table: Mapping[str, Any],
    places: Sequence[float],
    label: str,
    panels: Mapping[str, Iterable[str]],
) -> None:
    """Draw columns of a table over the number that its first rows stand for, with mean and std.

    Args:
        path: the PNG.
        table: see `artifactnet.experiments.common.write_table`.
        places: the numbers of its first rows.
        label: of these numbers.
        panels: title -> columns drawn in it.
    """
    rows = table["rows"][: len(places)]

    def draw(axes: Any, title: str) -> None:
        for column, color in zip(panels[title], _COLORS, strict=False):
            drawn = [(x, row["spread"][column]) for x, row in zip(places, rows, strict=True)]
            drawn = sorted((x, spread) for x, spread in drawn if spread is not None)
            if drawn:
                xs = [x for x, _ in drawn]
                means = [spread["mean"] for _, spread in drawn]
                stds = [spread["std"] or 0 for _, spread in drawn]
                axes.plot(xs, means, "o-", color=color, markersize=4, label=column.split()[0])
                low = [mean - std for mean, std in zip(means, stds, strict=True)]
                high = [mean + std for mean, std in zip(means, stds, strict=True)]
                axes.fill_between(xs, low, high, color=color, alpha=0.15, linewidth=0)
        axes.set(xlabel=label, title=title)
        axes.grid(alpha=0.3)
        axes.legend()

    _write(path, list(panels), draw, share_y=False)


def _write(
    path: Path, panels: Sequence[str], draw: Callable[[Any, str], None], share_y: bool
) -> None:
    from matplotlib import style
    from matplotlib.figure import Figure

    picture = io.BytesIO()
    with style.context(["default", _STYLE]):  # independent of the user's settings
        size = (_PANEL[0] * len(panels), _PANEL[1])
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=share_y)
        for axes, panel in zip(grid[0], panels, strict=True):
            draw(axes, panel)
        figure.savefig(picture, format="png", dpi=_DPI, metadata={"Software": None})
    with atomic_path(path) as temporary:
        temporary.write_bytes(picture.getvalue())
