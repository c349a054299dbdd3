"""What alignment costs against the number of tokens, drawn from reports of the benchmark."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from artifactnet.files import atomic_path
from artifactnet.types import ArtifactNetError
from perf.alignment_step import FEWEST_SIZES, fit_line
from perf.harness import check_out

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
    "sdpa": "#303030",
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

# N, value, smallest, largest
Point = tuple[float, float, float, float]

# label, form, points
Series = tuple[str, str, list[Point]]
Find = Callable[[Mapping[str, Any], str], tuple[list[Point], int]]


class Panel(NamedTuple):
    """What one panel shows.

    Attributes:
        find: points of a form in a report, and how many are missing for want of memory.
        draw: puts the series on the axes.
        scale: of the axis of tokens.
        floor: whether the step without alignment is a series as well.
    """

    find: Find
    draw: Callable[[Any, Sequence[Series]], None]
    scale: str
    floor: bool


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("reports", nargs="+", metavar="REPORT", help="JSON files of alignment-step")
    parser.add_argument("--out", required=True, metavar="SVG", help="file for the plot, SVG or PNG")


def run(args: argparse.Namespace) -> int:
    """Draw the plot."""
    check_out(args.out)
    check_plot(args.out)
    plot_costs([read_report(path) for path in args.reports], args.out)
    return 0


def check_plot(path: str | Path) -> None:
    """Refuse a file that cannot be drawn, before the long work.

    Raises:
        ArtifactNetError: it is neither SVG nor PNG.
    """
    if Path(path).suffix.lower() not in KINDS:
        raise ArtifactNetError(f"{path}: a plot is written as {' or '.join(KINDS)}")


def read_report(path: str | Path) -> dict[str, Any]:
    """Report of `perf.alignment_step.benchmark_alignment` from its file.

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
    """Draw time of a step and peak memory over tokens; a panel without numbers is left out.

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
    filled = [(_series(reports, panel), panel) for panel in _PANELS]
    panels = [(series, panel) for series, panel in filled if series]
    if not panels:
        raise ArtifactNetError("the reports hold neither times nor memory of a form to draw")
    kind = Path(path).suffix.lower()[1:]
    with style.context(["default", _STYLE]), atomic_path(path) as temporary:
        figure = Figure(figsize=(_WIDTH * len(panels), _HEIGHT), layout="constrained")
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (series, panel) in zip(grid, panels, strict=True):
            panel.draw(axes, series)
            _count_missing(axes, reports, panel)
            axes.set(xscale=panel.scale, xlabel="tokens N")
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


def _series(reports: Sequence[Mapping[str, Any]], panel: Panel) -> list[Series]:
    """Labelled points of every form in every report that has any."""
    lines: dict[tuple[str, str], Series] = {}
    for report, where in zip(reports, _places(reports), strict=True):
        for form in _forms(report, panel):
            points = panel.find(report, form)[0]
            if points:
                # reports of one setting and machine at other sizes extend its line
                series = lines.setdefault((where, form), (_label(form, where), form, []))
                series[2].extend(points)
    return [(label, form, sorted(points)) for label, form, points in lines.values()]


def _forms(report: Mapping[str, Any], panel: Panel) -> list[str]:
    return [form for form in report["forms"] if panel.floor or form != report["floor"]]


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


def _times(report: Mapping[str, Any], form: str) -> tuple[list[Point], int]:
    """Ratios that were measured, and how many ran out of memory."""
    points, missing = [], 0
    for row in report["steps"]:
        result = row["forms"][form]
        if result["out_of_memory"]:
            missing += 1
        else:
            ratio = result["ratio"]
            points.append((row["tokens"], ratio["median"], ratio["min"], ratio["max"]))
    return points, missing


def _peaks(report: Mapping[str, Any], form: str) -> tuple[list[Point], int]:
    """Megabytes at the peak, and how many sizes ran out of memory."""
    peaks = [(row["tokens"], row["forms"][form]) for row in report["memory"]]
    points = [(n, *(row["peak_megabytes"],) * 3) for n, row in peaks if row is not None]
    return points, len(peaks) - len(points)


def _count_missing(axes: Any, reports: Sequence[Mapping[str, Any]], panel: Panel) -> None:
    """Number of points that are not drawn, in the legend."""
    missing = sum(panel.find(r, form)[1] for r in reports for form in _forms(r, panel))
    if missing:
        axes.plot([], [], linestyle="none", label=f"points left out: {missing} out of memory")


def _ratio(axes: Any, series: Sequence[Series]) -> None:
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


def _memory(axes: Any, series: Sequence[Series]) -> None:
    """Points, and a line through those of enough sizes: memory that is linear in N lies on it."""
    for (label, form, points), marker in zip(series, _markers(series), strict=True):
        tokens, peaks = [p[0] for p in points], [p[1] for p in points]
        label = f"without alignment{label[len(form) :]}" if form == "sdpa" else label
        axes.plot(tokens, peaks, marker, color=_COLORS[form], label=label)
        if len(set(tokens)) < FEWEST_SIZES:
            continue
        fit = fit_line(list(zip(tokens, peaks, strict=True)))
        start, slope = fit["intercept_megabytes"], fit["megabytes_per_token"]
        ends = np.array([min(tokens), max(tokens)])
        sign = "-" if slope < 0 else "+"
        text = f"{start:,.0f} {sign} {abs(slope):.3g} N, R\u00b2 {fit['r_squared'] or 0:.4f}"
        axes.plot(ends, start + slope * ends, "--", color=_COLORS[form], label=text)
    axes.set(title="memory of a training step", ylabel="MB at the peak")
    axes.set_ylim(bottom=0)


def _markers(series: Sequence[Series]) -> list[str]:
    """A marker for each report; reports differ in what follows the form in the label."""
    places: dict[str, int] = {}
    order = [places.setdefault(label[len(form) :], len(places)) for label, form, _ in series]
    return [_MARKERS[place % len(_MARKERS)] for place in order]


_PANELS = (
    Panel(_times, _ratio, scale="log", floor=False),
    Panel(_peaks, _memory, scale="linear", floor=True),
)
