"""The charts of a report: as SVG for the page and as PNG from the same figure."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from artifactnet.explanation.report.svg import inline_svg
from artifactnet.explanation.report.tables import LABELS

PNG_DPI = 150
MAX_ROWS = 30  # bars of one chart; a list of a thousand generators is for the table
_MAX_LABEL = 28  # characters

# in between light and dark, so that they show on either page
_BLUE, _ORANGE, GRAY = "#3c82c8", "#d9730d", "#808080"
_WIDTH, _HEIGHT = 5.0, 3.8  # inches
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "artifactnet",
    "text.parse_math": False,  # a generator called $x$ is called just that
    "text.usetex": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
}


@dataclass(frozen=True, slots=True)
class Chart:
    """One drawn chart."""

    name: str  # also of its file
    title: str
    description: str  # the same in words, with the numbers
    svg: str  # an element for the page, see `inline_svg`
    png: bytes  # content of a file, on white; empty if none was asked for


@dataclass(frozen=True, slots=True)
class Plan:
    """A chart that can be drawn."""

    title: str
    description: str
    draw: Callable[[Any], None]  # gets the Axes
    height: float = _HEIGHT


def draw_charts(summary: dict[str, Any]) -> tuple[list[Chart], list[str]]:
    """Draw every chart for which the summary has data; equal summaries give equal bytes.

    Returns:
        The charts, and a sentence about missing ones, if any.
    """
    charts, missing = [], []
    for name, planner in _PLANNERS.items():
        plan = planner(summary)
        if isinstance(plan, str):
            missing.append(plan)
        else:
            charts.append(draw_chart(name, plan))
    return charts, [f"Not drawn: {'; '.join(missing)}."] if missing else []


def draw_chart(name: str, plan: Plan, png: bool = True) -> Chart:
    """Draw a chart, whose ``name`` is unique on its page. Equal plans give equal bytes."""
    from matplotlib import style
    from matplotlib.figure import Figure

    svg, file = io.StringIO(), io.BytesIO()
    # independent of the user's settings
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        # names in a script that the PNG's font lacks are boxes there; the page shows them
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure = Figure(figsize=(_WIDTH, plan.height), layout="constrained")
        plan.draw(figure.subplots())
        figure.savefig(svg, format="svg", facecolor="none", metadata={"Date": None})
        if png:
            figure.suptitle(plan.title)  # the page has it as text
            nothing = {"Software": None}
            figure.savefig(file, format="png", facecolor="white", dpi=PNG_DPI, metadata=nothing)
    element = inline_svg(svg.getvalue(), name, plan.title)
    return Chart(name, plan.title, plan.description, element, file.getvalue())


def _roc(summary: dict[str, Any]) -> Plan | str:
    roc = summary["roc"]
    if roc is None:
        return "ROC curve (needs labelled images of both classes)"
    points, verdicts = roc["points"], summary["verdicts"]
    called = LABELS[summary["judges"]]["fake"].lower()
    real, fake = verdicts["fp"] + verdicts["tn"], verdicts["tp"] + verdicts["fn"]
    here = verdicts["fp"] / real, verdicts["tp"] / fake

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1, label="chance")
        label = f"AUC {roc['auc']:.3f}"
        axes.plot(*zip(*((x, y) for x, y, _ in points), strict=True), color=_BLUE, label=label)
        axes.plot(*here, "o", color=_ORANGE, label="at the threshold", clip_on=False)
        axes.set(xlabel=f"real images {called}", ylabel=f"fakes {called}", aspect="equal")
        axes.set(xlim=(0, 1), ylim=(0, 1.01))
        axes.legend(loc="lower right")

    steps = ", ".join(
        f"{max(y for x, y, _ in points if x <= limit):.3f} at {limit:.0%}"
        for limit in (0.01, 0.05, 0.1, 0.2)
    )
    description = (
        f"Area under the curve {roc['auc']:.3f} over {fake} fakes and {real} real images. "
        f"At the model's threshold {here[1]:.3f} of the fakes and {here[0]:.3f} of the real images "
        f"are {called}. Share of fakes found, by real images {called} at most: {steps}."
    )
    return Plan("ROC curve", description, draw)


def _calibration(summary: dict[str, Any]) -> Plan | str:
    calibration = summary["calibration"]
    if calibration is None:
        return "calibration (needs labelled images of both classes)"
    name = LABELS[summary["judges"]]["axis"]
    filled, error = [row for row in calibration["bins"] if row["count"]], calibration["ece"]

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1, label="calibrated")
        at, label = [row["confidence"] for row in filled], f"this model, ECE {error:.3f}"
        axes.plot(at, [row["fake"] for row in filled], "o-", color=_BLUE, label=label)
        for row in filled:
            point, offset = (row["confidence"], row["fake"]), (0, 6 if row["fake"] < 0.9 else -13)
            style = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
            axes.annotate(str(row["count"]), point, xytext=offset, **style)
        axes.set(xlabel=name, ylabel="share of fakes")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        legend_above(axes)

    rows = "; ".join(
        f"{row['low']:.1f} to {row['high']:.1f}: {row['count']} images, mean probability "
        f"{row['confidence']:.3f}, share of fakes {row['fake']:.3f}"
        for row in filled
    )
    description = (
        f"Expected calibration error {error:.3f}. By {name}, {rows}. "
        "The numbers in the chart count images."
    )
    return Plan("Calibration", description, draw)


def _probabilities(summary: dict[str, Any]) -> Plan | str:
    name = LABELS[summary["judges"]]["axis"]
    histogram, edges = summary["histogram"], summary["histogram"]["edges"]
    series = [
        (label, histogram[label], color)
        for label, color in (("real", _BLUE), ("fake", _ORANGE), ("unknown", GRAY))
        if label in histogram
    ]
    if not series:
        return "probabilities (there are no images)"

    def draw(axes: Any) -> None:
        base = [0] * (len(edges) - 1)
        for label, counts, color in series:
            top = [low + count for low, count in zip(base, counts, strict=True)]
            axes.stairs(top, edges, baseline=base, fill=True, color=color, label=label)
            base = top
        axes.set(xlabel=name, ylabel="images", xlim=(0, 1))
        axes.yaxis.get_major_locator().set_params(integer=True)
        if len(series) > 1 or series[0][0] != "unknown":
            legend_above(axes)

    description = f"Images by {name}."
    for label, counts, _ in series:
        bins = [(n, low, high) for n, (low, high) in zip(counts, pairwise(edges), strict=True) if n]
        words = ", ".join(f"{count} from {low:.2f} to {high:.2f}" for count, low, high in bins)
        description += f" {label.capitalize()}: {words}."
    return Plan("Probabilities", description, draw)


def _generators(summary: dict[str, Any]) -> Plan | str:
    rows = summary["generators"]
    if not rows:
        return "generators (none is named)"
    labelled = [row for row in rows if row["accuracy"] is not None]
    if labelled:
        title, unit = "Accuracy by generator", "classified correctly"
        shares = [(row["name"], row["accuracy"], row["images"]) for row in labelled]
    else:
        title = f"{LABELS[summary['judges']]['fake']}, by generator"
        unit = LABELS[summary["judges"]]["fake"].lower()
        shares = [(row["name"], row["called_fake"] / row["images"], row["images"]) for row in rows]
    shown = sorted(shares, key=lambda share: -share[2])[:MAX_ROWS]
    shown = [share for share in shares if share in shown]
    left_out = len(shares) - len(shown)

    def draw(axes: Any) -> None:
        draw_bars(axes, [name for name, _, _ in shown], [share for _, share, _ in shown], _BLUE)
        for k, (_, share, images) in enumerate(shown):
            axes.text(share + 0.01, k, f"{share:.0%} of {images}", va="center", fontsize=8)
        axes.set(xlabel=f"share of images {unit}", xlim=(0, 1.2), xticks=[0, 0.25, 0.5, 0.75, 1])

    words = "; ".join(f"{name}: {share:.3f} of {images} images" for name, share, images in shown)
    more = f" The {left_out} generators with fewest images are left out." if left_out else ""
    return Plan(title, f"Share of images {unit}. {words}.{more}", draw, tall(len(shown)))


def _categories(summary: dict[str, Any]) -> Plan | str:
    rows = summary["categories"]
    scored = [row for row in rows if row["IoU"] is not None]
    if scored:
        return _category_scores(scored)
    counted = [row for row in rows if row["regions"]]
    if not counted:
        return "categories (no artifacts were predicted or scored)"

    def draw(axes: Any) -> None:
        draw_bars(
            axes, [row["name"] for row in counted], [row["regions"] for row in counted], _BLUE
        )
        for k, row in enumerate(counted):
            axes.text(row["regions"], k, f" {row['regions']}", va="center", fontsize=8)
        axes.set(xlabel="regions predicted")
        axes.margins(x=0.12)
        axes.xaxis.get_major_locator().set_params(integer=True)

    words = "; ".join(
        f"{row['name']}: {row['regions']} in {row['predicted_images']} images" for row in counted
    )
    title = "Artifacts predicted, by category"
    return Plan(title, f"Regions predicted. {words}.", draw, tall(len(counted)))


def _category_scores(rows: Sequence[dict[str, Any]]) -> Plan:
    names = [row["name"] for row in rows]

    def draw(axes: Any) -> None:
        for key, color, shift in (("IoU", _BLUE, -0.19), ("PixF1", _ORANGE, 0.19)):
            values = [row[key] for row in rows]
            draw_bars(axes, names, values, color, shift, 0.36, key)
            for k, value in enumerate(values):
                axes.text(value + 0.01, k + shift, f"{value:.2f}", va="center", fontsize=8)
        axes.set(xlabel="predicted masks against the annotation", xlim=(0, 1.1))
        axes.set(xticks=[0, 0.25, 0.5, 0.75, 1])
        legend_above(axes)

    words = "; ".join(
        f"{row['name']}: IoU {row['IoU']:.3f}, PixF1 {row['PixF1']:.3f}, annotated in "
        f"{row['annotated_images']} images"
        for row in rows
    )
    description = f"Over all pixels of the annotated fakes. {words}."
    return Plan("Predicted masks by category", description, draw, tall(2 * len(rows)))


def draw_bars(
    axes: Any,
    names: Sequence[str],
    values: Sequence[float],
    color: str,
    shift: float = 0.0,
    thickness: float = 0.7,
    label: str | None = None,
) -> None:
    """Horizontal bars, the first on top."""
    places = range(len(names))
    axes.barh([k + shift for k in places], values, thickness, color=color, label=label)
    axes.set_yticks(list(places), [short_label(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)


def legend_above(axes: Any) -> None:
    """A legend that covers no data."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)


def tall(bars: int) -> float:
    """Height in inches of a chart with this many bars."""
    return max(2.0, 0.9 + 0.25 * bars)


def short_label(name: str) -> str:
    """A name as a label: shortened, without unprintable characters."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in name)
    return shown if len(shown) <= _MAX_LABEL else shown[: _MAX_LABEL - 1] + "…"


_PLANNERS: dict[str, Callable[[dict[str, Any]], Plan | str]] = {
    "roc": _roc,
    "calibration": _calibration,
    "probabilities": _probabilities,
    "generators": _generators,
    "categories": _categories,
}
CHART_NAMES = tuple(_PLANNERS)
