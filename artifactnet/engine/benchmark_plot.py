"""What alignment costs against the number of tokens, drawn from reports of the benchmark."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from artifactnet.files import atomic_path
from artifactnet.types import ArtifactNetError

KINDS = (".svg", ".png")
_DPI = 150
_WIDTH, _HEIGHT = 5.0, 3.8  # inches, of a panel without its legend
_ENTRY = 8  # points, size of a legend's letters
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "artifactnet",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.grid": True,
    "grid.color": "#e0e0e0",
    "axes.axisbelow": True,
}
# one color for a form, in whichever panel and report; the library's own come first
_COLORS = {
    "fused": "#3c82c8",
    "first order": "#3c82c8",
    "second order": "#2a9d6a",
    "stored row": "#8e5bb5",
    "stored first order": "#8e5bb5",
    "naive": "#d9730d",
    "plain create_graph": "#d9730d",
    "extra backward": "#b0a030",
    "unfused": "#808080",
}
_MARKERS = "osD^v*"  # one for a report's setting
_SETTING = ("backbone", "method", "device", "dtype", "batch_size", "start_layer", "every")
_MACHINE = ("processor", "cores", "torch_threads", "gpu")  # the last where one was used
_WORDS = {
    "batch_size": "batch {}",
    "start_layer": "from block {}",
    "every": "every {}",
    "cores": "{} cores",
    "torch_threads": "{} threads",
}
_FIT_POINTS = 100  # a line is a curve on these axes

# N, value, smallest, largest
Point = tuple[float, float, float, float]
# label, form, points
Series = tuple[str, str, list[Point]]


class Fit(NamedTuple):
    """A line that a report has through the extra memory of a form.

    Attributes:
        label: of the form.
        form: for its color.
        ends: smallest and largest N that were measured.
        intercept: megabytes.
        slope: megabytes per token.
    """

    label: str
    form: str
    ends: tuple[int, int]
    intercept: float
    slope: float


_OUT_OF_MEMORY, _NO_LOGARITHM = "out of memory", "at 0 MB or below"
Find = Callable[[Mapping[str, Any], str], tuple[list[Point], Counter[str]]]
Draw = Callable[[Any, Sequence[Series], Sequence[Fit]], None]


def check_plot(path: str | Path) -> None:
    """Refuse a file that cannot be drawn, before the long work.

    Raises:
        ArtifactNetError: it is neither SVG nor PNG.
    """
    if Path(path).suffix.lower() not in KINDS:
        raise ArtifactNetError(f"{path}: a plot is written as {' or '.join(KINDS)}")


def read_report(path: str | Path) -> dict[str, Any]:
    """Report of `artifactnet.engine.benchmark_alignment.benchmark_alignment` from its file.

    Raises:
        ArtifactNetError: it cannot be read, or is something else.
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactNetError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(report, dict) or report.get("benchmark") != "alignment-step":
        raise ArtifactNetError(f"{path}: is not a report of `benchmark alignment-step --out`")
    return report


def plot_costs(reports: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draw time of a step and extra memory over tokens; a panel without numbers is left out.

    Args:
        reports: of the benchmark; where their settings differ, labels say in what.
        path: SVG or PNG file.

    Raises:
        ArtifactNetError: neither kind of file, or there is nothing to draw.
        OSError: the file cannot be written.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    check_plot(path)
    panels = [(_series(reports, find), find, draw) for find, draw in _PANELS]
    panels = [panel for panel in panels if panel[0]]
    if not panels:
        raise ArtifactNetError("the reports hold neither times nor memory of a form to draw")
    kind = Path(path).suffix.lower()[1:]
    with style.context(["default", _STYLE]), atomic_path(path) as temporary:
        figure = Figure(figsize=(_WIDTH * len(panels), _HEIGHT), layout="constrained")
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (series, find, draw) in zip(grid, panels, strict=True):
            draw(axes, series, _fits(reports))
            _say_what_is_missing(axes, reports, find)
            axes.set(xscale="log", xlabel="tokens N")
            ticks = sorted({point[0] for _, _, points in series for point in points})
            axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks], rotation=45)
            axes.minorticks_off()
            # below the axis and its labels, where however many entries cover no point
            place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 8}
            axes.legend(fontsize=_ENTRY, **place)
        entries = max(len(axes.get_legend_handles_labels()[1]) for axes in grid)
        figure.set_figheight(_HEIGHT + entries * 1.7 * _ENTRY / 72)
        # dates and versions would make two plots of the same numbers differ
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(temporary, format=kind, facecolor="white", dpi=_DPI, metadata=metadata)


def _series(reports: Sequence[Mapping[str, Any]], find: Find) -> list[Series]:
    """Labelled points of every form in every report, where there are any."""
    found: dict[tuple[str, str], Series] = {}
    for report, where in zip(reports, _places(reports), strict=True):
        for form in report["forms"]:
            points = find(report, form)[0] if form != report["floor"] else []
            if points:
                # reports of one setting and machine at other sizes go on with its line
                series = found.setdefault((where, form), (_label(form, where), form, []))
                series[2].extend(points)
    return [(label, form, sorted(points)) for label, form, points in found.values()]


def _places(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Setting and machine of each report, in words, as far as the reports differ in them."""
    facts = [
        {key: report["setting"][key] for key in _SETTING}
        | {key: report["machine"].get(key) for key in _MACHINE}
        for report in reports
    ]
    telling = [key for key in (*_SETTING, *_MACHINE) if len({str(own[key]) for own in facts}) > 1]
    return [
        ", ".join(_WORDS.get(key, "{}").format(own[key]) for key in telling if own[key] is not None)
        for own in facts
    ]


def _label(form: str, where: str) -> str:
    return f"{form} ({where})" if where else form


def _times(report: Mapping[str, Any], form: str) -> tuple[list[Point], Counter[str]]:
    """Ratios that were measured, and why others are missing."""
    points, missing = [], Counter[str]()
    for row in report["steps"]:
        found = row["forms"][form]
        if found["out_of_memory"]:
            missing[_OUT_OF_MEMORY] += 1
        else:
            ratio = found["ratio"]
            points.append((row["tokens"], ratio["median"], ratio["min"], ratio["max"]))
    return points, missing


def _extra(report: Mapping[str, Any], form: str) -> tuple[list[Point], Counter[str]]:
    """Megabytes that have a logarithm, and why others are missing."""
    points, missing = [], Counter[str]()
    for row in report["memory"]:
        found = row["forms"][form]
        if found is None:
            missing[_OUT_OF_MEMORY] += 1
        elif found["extra_megabytes"] <= 0:  # lost in the noise of the measurement
            missing[_NO_LOGARITHM] += 1
        else:
            points.append((row["tokens"], *(found["extra_megabytes"],) * 3))
    return points, missing


def _fits(reports: Sequence[Mapping[str, Any]]) -> list[Fit]:
    found = []
    for report, where in zip(reports, _places(reports), strict=True):
        for form, fit in report["memory_fit"].items():
            rows = [row for row in report["memory"] if row["forms"][form] is not None]
            tokens = [row["tokens"] for row in rows]
            line = fit["intercept_megabytes"], fit["megabytes_per_token"]
            found.append(Fit(_label(form, where), form, (min(tokens), max(tokens)), *line))
    return found


def _say_what_is_missing(axes: Any, reports: Sequence[Mapping[str, Any]], find: Find) -> None:
    """How many points are not drawn and why, in the legend."""
    missing = Counter[str]()
    for report in reports:
        for form in report["forms"]:
            missing += find(report, form)[1] if form != report["floor"] else Counter()
    if missing:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(missing.items()))
        axes.plot([], [], linestyle="none", label=f"points left out: {reasons}")


def _ratio(axes: Any, series: Sequence[Series], _: Sequence[Fit]) -> None:
    axes.axhline(1, color="black", linewidth=1, linestyle="--", label="step without alignment")
    for (label, form, points), marker in zip(series, _markers(series), strict=True):
        tokens, middle, low, high = zip(*points, strict=True)
        spread = [
            [m - s for m, s in zip(middle, low, strict=True)],
            [s - m for m, s in zip(middle, high, strict=True)],
        ]
        axes.errorbar(
            tokens, middle, spread, marker=marker, color=_COLORS[form], label=label, capsize=2
        )
    axes.set(title="time of a training step", ylabel="ratio to the step without alignment")


def _memory(axes: Any, series: Sequence[Series], fits: Sequence[Fit]) -> None:
    for (label, form, points), marker in zip(series, _markers(series), strict=True):
        tokens, extra = [p[0] for p in points], [p[1] for p in points]
        axes.plot(tokens, extra, marker=marker, color=_COLORS[form], label=label)
    for fit in fits:
        places = np.geomspace(*fit.ends, _FIT_POINTS)
        line = fit.intercept + fit.slope * places
        sign = "-" if fit.slope < 0 else "+"
        axes.plot(
            places,
            np.where(line > 0, line, np.nan),  # below 0 it has no logarithm
            linestyle="--",
            color=_COLORS[fit.form],
            label=f"fit of {fit.label}: {fit.intercept:.3g} {sign} {abs(fit.slope):.3g} N",
        )
    axes.set(title="memory that alignment adds", ylabel="MB at the peak", yscale="log")


def _markers(series: Sequence[Series]) -> list[str]:
    """The same for series of the same report, told by what follows the form in the label."""
    places: dict[str, int] = {}
    order = [places.setdefault(label[len(form) :], len(places)) for label, form, _ in series]
    return [_MARKERS[place % len(_MARKERS)] for place in order]


_PANELS: tuple[tuple[Find, Draw], ...] = ((_times, _ratio), (_extra, _memory))
