"""The summary of a report as texts: single figures and the rows of tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from artifactnet.metrics import calibration
from artifactnet.metrics.scores import pixel_scores, verdict_scores
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED

MASK = "mask"  # name of the predicted mask among the maps that are scored
UNKNOWN = "unknown"  # row of images whose generator nobody named, beside others
HISTOGRAM_BINS = 20

# label in the files -> name in tables
CATEGORY_NAMES = {category.label: category.short for category in CATEGORIES}
CATEGORY_NAMES[UNCATEGORIZED] = UNCATEGORIZED
Counts = tuple[int, int, int]  # pixels: true positive, false positive, false negative


@dataclass(frozen=True, slots=True)
class Fact:
    """What the summary needs of one image.

    Attributes:
        probability: of being fake, in [0, 1].
        is_fake: what the detector called it.
        label: 0 real, 1 fake, None where nobody knows.
        generator: what made it; None where nobody knows.
        annotated: labels of the categories annotated in it.
        predicted: labels of the categories of the predicted mask.
        regions: how many regions of each category were predicted; None without a mask.
        pixels: of each map (a method, or `MASK`) against the annotation, at the image's own
            size; empty unless the image is a fake whose artifacts were looked for.
        category_pixels: the same of the predicted mask for each category; empty also where the
            annotation names no category.
        scores: of each method, ``pointing`` and ``mass``; empty unless artifacts were annotated.
    """

    probability: float
    is_fake: bool
    label: int | None = None
    generator: str | None = None
    annotated: tuple[str, ...] = ()
    predicted: tuple[str, ...] = ()
    regions: dict[str, int] | None = None
    pixels: dict[str, Counts] = field(default_factory=dict)
    category_pixels: dict[str, Counts] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)


def summarize(facts: Sequence[Fact], methods: Sequence[str]) -> dict[str, Any]:
    """Figures of all images together.

    Args:
        facts: one per image.
        methods: names of the heatmaps, in order.

    Returns:
        Fractions are in [0, 1]; what has no data is None or an empty list:

        - ``images``, ``labelled``, ``called_fake``, ``called_real``: counts of images;
        - ``verdicts``: ``tp``, ``fp``, ``tn``, ``fn`` of the labelled images;
        - ``authenticity``: see `artifactnet.metrics.scores.verdict_scores`, and ``auc``, which is
          None unless both classes occur;
        - ``calibration``: ``ece`` and ``bins`` (``low``, ``high``, ``count``, ``confidence``,
          ``fake``), and ``roc``: ``points`` of (false positive rate, true positive rate,
          threshold) and ``auc``; both need both classes;
        - ``histogram``: ``edges`` and, for each of ``real``, ``fake`` and ``unknown`` that occurs,
          how many images' probabilities lie in each bin;
        - ``generators``: rows of ``name``, ``label`` (None where images differ or nobody knows),
          ``images``, ``called_fake``, ``accuracy`` (over labelled images) and
          ``mean_probability``;
        - ``categories``: rows of ``label``, ``name``, ``annotated_images``, ``predicted_images``,
          ``regions`` (predicted) and, where masks meet annotations, ``tp``, ``fp``, ``fn``,
          ``IoU``, ``PixP``, ``PixR``, ``PixF1``, else None;
        - ``maps``: rows of ``name``, ``evaluated_images``, the same counts and scores over all
          pixels of the annotated fakes, and ``pointing`` and ``mass`` as means over the
          ``artifact_images`` among them (None for the mask, or without such images).

    Raises:
        ArtifactNetError: a probability is not a number in [0, 1].
    """
    known = [fact for fact in facts if fact.label is not None]
    called_fake = sum(fact.is_fake for fact in facts)
    return {
        "images": len(facts),
        "labelled": len(known),
        "called_fake": called_fake,
        "called_real": len(facts) - called_fake,
        **_judgment(known),
        "histogram": _histogram(facts),
        "generators": _generators(facts),
        "categories": _categories(facts),
        "maps": _maps(facts, methods),
    }


def _judgment(known: Sequence[Fact]) -> dict[str, Any]:
    """What can be said only where the truth is known."""
    empty = dict.fromkeys(("verdicts", "authenticity", "calibration", "roc"))
    if not known:
        return empty
    pairs = [(fact.label == 1, fact.is_fake) for fact in known]
    # counted from the verdicts that stand in the report, not from a threshold applied again
    verdicts = {
        "tp": pairs.count((True, True)),
        "fp": pairs.count((False, True)),
        "tn": pairs.count((False, False)),
        "fn": pairs.count((True, False)),
    }
    labels = np.array([fact.label for fact in known])
    probabilities = np.array([fact.probability for fact in known])
    points = calibration.roc_curve(labels, probabilities)  # none where a class is missing
    area = _area(points) if points else None
    found = {
        **empty,
        "verdicts": verdicts,
        "authenticity": {**verdict_scores(**verdicts), "auc": area},
    }
    if points:
        found["calibration"] = {
            "ece": calibration.expected_calibration_error(labels, probabilities),
            "bins": calibration.reliability(labels, probabilities),
        }
        found["roc"] = {"points": [list(point) for point in points], "auc": area}
    return found


def _area(points: Sequence[calibration.RocPoint]) -> float:
    """Area under the exact curve: the chance that a fake is above a real image, ties half."""
    return sum((b.fpr - a.fpr) * (a.tpr + b.tpr) / 2 for a, b in pairwise(points))


def _histogram(facts: Sequence[Fact]) -> dict[str, Any]:
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    found: dict[str, Any] = {"edges": edges.tolist()}
    for name, label in (("real", 0), ("fake", 1), ("unknown", None)):
        values = [fact.probability for fact in facts if fact.label == label]
        if values:
            found[name] = np.histogram(values, edges)[0].tolist()
    return found


def _generators(facts: Sequence[Fact]) -> list[dict[str, Any]]:
    """Rows in alphabetical order, real images first and nameless ones last."""
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(UNKNOWN if fact.generator is None else fact.generator, []).append(fact)
    if all(fact.generator is None for fact in facts):
        return []
    order = sorted(groups, key=lambda name: (name == UNKNOWN, name != "real", name))
    return [_generator(name, groups[name]) for name in order]


def _generator(name: str, facts: Sequence[Fact]) -> dict[str, Any]:
    labels = {fact.label for fact in facts}
    right = [fact.is_fake == (fact.label == 1) for fact in facts if fact.label is not None]
    return {
        "name": name,
        "label": labels.pop() if len(labels) == 1 else None,
        "images": len(facts),
        "called_fake": sum(fact.is_fake for fact in facts),
        "accuracy": sum(right) / len(right) if right else None,
        "mean_probability": sum(fact.probability for fact in facts) / len(facts),
    }


def _categories(facts: Sequence[Fact]) -> list[dict[str, Any]]:
    """Rows of the categories that occur, annotated or predicted, in the taxonomy's order."""
    rows = []
    for label, name in CATEGORY_NAMES.items():
        annotated = sum(label in fact.annotated for fact in facts)
        predicted = sum(label in fact.predicted for fact in facts)
        if not annotated and not predicted:
            continue
        counts = [fact.category_pixels[label] for fact in facts if label in fact.category_pixels]
        regions = [fact.regions.get(label, 0) for fact in facts if fact.regions is not None]
        rows.append(
            {
                "label": label,
                "name": name,
                "annotated_images": annotated,
                "predicted_images": predicted,
                "regions": sum(regions) if regions else None,
                **_pixels(counts),
            }
        )
    return rows


def _maps(facts: Sequence[Fact], methods: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for name in (*methods, MASK):
        counts = [fact.pixels[name] for fact in facts if name in fact.pixels]
        if not counts:
            continue
        scores = [fact.scores[name] for fact in facts if name in fact.scores]
        rows.append(
            {
                "name": name,
                "evaluated_images": len(counts),
                **_pixels(counts),
                "artifact_images": len(scores),
                "pointing": _mean(score["pointing"] for score in scores),
                "mass": _mean(score["mass"] for score in scores),
            }
        )
    return rows


def _pixels(counts: Sequence[Counts]) -> dict[str, Any]:
    """Counts over all images and the scores of these sums (micro average)."""
    if not counts:
        return dict.fromkeys(("tp", "fp", "fn", "IoU", "PixP", "PixR", "PixF1"))
    tp, fp, fn = (sum(column) for column in zip(*counts, strict=True))
    return {"tp": tp, "fp": fp, "fn": fn, **pixel_scores(tp, fp, fn)}


def _mean(values: Iterable[float]) -> float | None:
    each = list(values)
    return sum(each) / len(each) if each else None


NOTHING = "\N{EN DASH}"  # a cell without data
_CLASSES = {None: "not stated", 0: "real", 1: "fake"}
_PIXELS = ("IoU", "PixP", "PixR", "PixF1")


@dataclass(frozen=True, slots=True)
class Table:
    """A table for people.

    Attributes:
        caption: what it shows and how it was counted.
        header: names of the columns; the first one names the rows.
        rows: texts, as many per row as the header has.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def figures(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of the figures that stand first in a report.

    Args:
        summary: as `artifactnet.explanation.report.summary.summarize` makes it.
    """
    found = [
        ("Images", str(summary["images"])),
        ("Called fake", str(summary["called_fake"])),
        ("Called real", str(summary["called_real"])),
    ]
    scores = summary["authenticity"]
    if scores is None:
        return found
    if summary["labelled"] < summary["images"]:
        found.append(("With a label", str(summary["labelled"])))
    names = {"balanced_accuracy": "Balanced accuracy", "f1": "F1", "auc": "Area under ROC"}
    found += [(name, _number(scores[key])) for key, name in names.items()]
    if summary["calibration"] is not None:
        found.append(("Calibration error", _number(summary["calibration"]["ece"])))
    return found


def tables(summary: dict[str, Any], names: dict[str, str]) -> list[Table]:
    """Tables of a report; only those that have rows.

    Args:
        summary: as `artifactnet.explanation.report.summary.summarize` makes it.
        names: what people call each map of the summary.
    """
    made = [
        _verdicts(summary["verdicts"], (summary["authenticity"] or {}).get("note", "")),
        _tables_generators(summary["generators"]),
        _tables_categories(summary["categories"]),
        _tables_maps(summary["maps"], names),
    ]
    return [table for table in made if table.rows]


def _verdicts(counts: dict[str, int] | None, note: str) -> Table:
    header = ("Labelled images", "called fake", "called real")
    caption = "Verdicts" + (f" ({note})" if note else "")
    if counts is None:
        return Table(caption, header, ())
    fake = ("fake", str(counts["tp"]), f"{counts['fn']} (missed)")
    real = ("real", f"{counts['fp']} (false alarms)", str(counts["tn"]))
    return Table(caption, header, (fake, real))


def _tables_generators(rows: Sequence[dict[str, Any]]) -> Table:
    header = ("Generator", "label", "images", "called fake", "accuracy", "mean probability")
    texts = tuple(
        (
            row["name"],
            _CLASSES[row["label"]],
            str(row["images"]),
            str(row["called_fake"]),
            _number(row["accuracy"]),
            _number(row["mean_probability"]),
        )
        for row in rows
    )
    return _without_empty(Table("Generators", header, texts))


def _tables_categories(rows: Sequence[dict[str, Any]]) -> Table:
    header = ("Category", "annotated in images", "predicted in images", "regions predicted")
    texts = tuple(
        (
            row["name"],
            str(row["annotated_images"]),
            str(row["predicted_images"]),
            NOTHING if row["regions"] is None else str(row["regions"]),
            *(_number(row[key]) for key in _PIXELS),
        )
        for row in rows
    )
    caption = "Artifact categories; scores over all pixels of the annotated fakes together"
    return _without_empty(Table(caption, (*header, *_PIXELS), texts))


def _tables_maps(rows: Sequence[dict[str, Any]], names: dict[str, str]) -> Table:
    header = ("Map", "annotated fakes", *_PIXELS, "pointing game", "mass inside", "TP", "FP", "FN")
    texts = tuple(
        (
            names.get(row["name"], row["name"]),
            str(row["evaluated_images"]),
            *(_number(row[key]) for key in (*_PIXELS, "pointing", "mass")),
            *(f"{row[key]:,}" for key in ("tp", "fp", "fn")),
        )
        for row in rows
    )
    caption = "Maps against annotated artifacts, over all pixels of the annotated fakes together"
    return Table(caption, header, texts)


def _without_empty(table: Table) -> Table:
    """The table without the columns in which no row says anything."""
    silent = {NOTHING, _CLASSES[None]}
    kept = [i for i in range(len(table.header)) if {row[i] for row in table.rows} - silent]
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return Table(table.caption, tuple(table.header[i] for i in kept), rows)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"
