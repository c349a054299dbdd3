"""What alignment costs against the number of tokens, drawn from reports of the benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from artifactnet.files import atomic_path
from artifactnet.types import ArtifactNetError

KINDS = (".svg", ".png")
_DPI = 150
_WIDTH, _HEIGHT = 5.0, 3.8  # inches, of a panel
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
_TELLING = ("backbone", "method", "device", "dtype", "batch_size", "start_layer", "every")

# label, form, points (N, value, smallest, largest)
Series = tuple[str, str, list[tuple[float, float, float, float]]]


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
    panels = [
        (_series(reports, find), draw) for find, draw in ((_times, _ratio), (_extra, _memory))
    ]
    panels = [(series, draw) for series, draw in panels if series]
    if not panels:
        raise ArtifactNetError("the reports hold neither times nor memory of a form to draw")
    kind = Path(path).suffix.lower()[1:]
    with style.context(["default", _STYLE]), atomic_path(path) as temporary:
        figure = Figure(figsize=(_WIDTH * len(panels), _HEIGHT), layout="constrained")
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (series, draw) in zip(grid, panels, strict=True):
            draw(axes, series)
            axes.set(xscale="log", xlabel="tokens N")
            ticks = sorted({point[0] for _, _, points in series for point in points})
            axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks], rotation=45)
            axes.minorticks_off()
            axes.legend(fontsize=8)
        # dates and versions would make two plots of the same numbers differ
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(temporary, format=kind, facecolor="white", dpi=_DPI, metadata=metadata)


def _series(
    reports: Sequence[Mapping[str, Any]],
    find: Callable[[Mapping[str, Any], str], list[tuple[float, float, float, float]]],
) -> list[Series]:
    """Labelled points of every form in every report, where there are any."""
    telling = [key for key in _TELLING if len({str(r["setting"][key]) for r in reports}) > 1]
    found: dict[tuple[str, str], Series] = {}
    for report in reports:
        where = ", ".join(_words(key, report["setting"][key]) for key in telling)
        for form in report["forms"]:
            points = find(report, form) if form != report["floor"] else []
            if points:
                label = f"{form} ({where})" if where else form
                # reports of one setting at other sizes go on with its line
                series = found.setdefault((where, form), (label, form, []))
                series[2].extend(points)
    return [(label, form, sorted(points)) for label, form, points in found.values()]


def _words(key: str, value: Any) -> str:
    names = {"batch_size": "batch", "start_layer": "from block", "every": "every"}
    return f"{names[key]} {value}" if key in names else str(value)


def _times(report: Mapping[str, Any], form: str) -> list[tuple[float, float, float, float]]:
    rows = [(row["tokens"], row["forms"][form]) for row in report["steps"]]
    return [
        (tokens, found["ratio"]["median"], found["ratio"]["min"], found["ratio"]["max"])
        for tokens, found in rows
        if not found["out_of_memory"]
    ]


def _extra(report: Mapping[str, Any], form: str) -> list[tuple[float, float, float, float]]:
    rows = [(row["tokens"], row["forms"][form]) for row in report["memory"]]
    extra = [(tokens, found["extra_megabytes"]) for tokens, found in rows if found is not None]
    # a logarithm has no place for what is lost in the noise of the measurement
    return [(tokens, size, size, size) for tokens, size in extra if size > 0]


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
    for (label, form, points), marker in zip(series, _markers(series), strict=True):
        tokens, extra = [p[0] for p in points], [p[1] for p in points]
        axes.plot(tokens, extra, marker=marker, color=_COLORS[form], label=label)
    axes.set(title="memory that alignment adds", ylabel="MB at the peak", yscale="log")


def _markers(series: Sequence[Series]) -> list[str]:
    """The same for series of the same report, told by what follows the form in the label."""
    places: dict[str, int] = {}
    order = [places.setdefault(label[len(form) :], len(places)) for label, form, _ in series]
    return [_MARKERS[place % len(_MARKERS)] for place in order]
