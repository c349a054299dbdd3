"""The summary of a report as texts: single figures and the rows of tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NOTHING = "\N{EN DASH}"  # a cell without data
_CLASSES = {None: "not stated", 0: "real", 1: "fake"}
_PIXELS = ("IoU", "PixP", "PixR", "PixF1")


# names of verdicts and of the probability, by what a model judges
LABELS = {
    "authenticity": {
        "fake": "Called fake",
        "uncertain": "Uncertain",
        "real": "Called real",
        "probability": "Probability of fake",
        "short": "P(fake)",
        "axis": "probability of being fake",
    },
    "plausibility": {
        "fake": "Called implausible",
        "uncertain": "Uncertain",
        "real": "Called plausible",
        "probability": "Implausibility",
        "short": "Implausibility",
        "axis": "implausibility",
    },
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts; the first column names the rows."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def summary_figures(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of the main figures of a summary made by `summarize`."""
    unsure, labels = summary["called_uncertain"], LABELS[summary["judges"]]
    figures = [
        ("Images", str(summary["images"])),
        (labels["fake"], str(summary["called_fake"])),
        *([(labels["uncertain"], str(unsure))] if unsure else []),
        (labels["real"], str(summary["called_real"])),
    ]
    scores = summary["authenticity"]
    if scores is None:
        return figures
    if summary["labelled"] < summary["images"]:
        figures.append(("With a label", str(summary["labelled"])))
    names = {"balanced_accuracy": "Balanced accuracy", "f1": "F1", "auc": "Area under ROC"}
    figures += [(name, _number(scores[key])) for key, name in names.items()]
    if summary["calibration"] is not None:
        figures.append(("Calibration error", _number(summary["calibration"]["ece"])))
    return figures


def summary_tables(summary: dict[str, Any], names: dict[str, str]) -> list[Table]:
    """Tables of a summary made by `summarize`, those with rows; ``names``: of maps, for display."""
    tables = (_verdict_table(summary), _generator_table(summary), _category_table(summary))
    return [table for table in (*tables, _map_table(summary, names)) if table.rows]


def _verdict_table(summary: dict[str, Any]) -> Table:
    note, counts = (summary["authenticity"] or {}).get("note", ""), summary["answers"]
    labels = LABELS[summary["judges"]]
    verdicts = (labels[verdict].lower() for verdict in ("fake", "uncertain", "real"))
    header = ("Labelled images", *verdicts)
    caption = "Verdicts" + (f" ({note})" if note else "")
    if counts is None:
        return Table(caption, header, ())
    unsure = [str(counts[label]["uncertain"]) for label in ("fake", "real")]
    if not summary["called_uncertain"]:
        unsure = [NOTHING, NOTHING]
    fake = ("fake", str(counts["fake"]["fake"]), unsure[0], f"{counts['fake']['real']} (missed)")
    alarms = f"{counts['real']['fake']} (false alarms)"
    real = ("real", alarms, unsure[1], str(counts["real"]["real"]))
    return _drop_empty_columns(Table(caption, header, (fake, real)))


def _generator_table(summary: dict[str, Any]) -> Table:
    counts = ("images", LABELS[summary["judges"]]["fake"].lower(), "uncertain")
    header = ("Generator", "label", *counts, "accuracy", "mean probability")
    rows = tuple(
        (
            row["name"],
            _CLASSES[row["label"]],
            str(row["images"]),
            str(row["called_fake"]),
            str(row["called_uncertain"]) if summary["called_uncertain"] else NOTHING,
            _number(row["accuracy"]),
            _number(row["mean_probability"]),
        )
        for row in summary["generators"]
    )
    return _drop_empty_columns(Table("Generators", header, rows))


def _category_table(summary: dict[str, Any]) -> Table:
    header = ("Category", "annotated in images", "predicted in images", "regions predicted")
    rows = tuple(
        (
            row["name"],
            str(row["annotated_images"]),
            str(row["predicted_images"]),
            NOTHING if row["regions"] is None else str(row["regions"]),
            *(_number(row[key]) for key in _PIXELS),
        )
        for row in summary["categories"]
    )
    caption = "Artifact categories; scores over all pixels of the annotated fakes together"
    return _drop_empty_columns(Table(caption, (*header, *_PIXELS), rows))


def _map_table(summary: dict[str, Any], names: dict[str, str]) -> Table:
    header = ("Map", "annotated fakes", *_PIXELS, "pointing game", "mass inside", "TP", "FP", "FN")
    rows = tuple(
        (
            names.get(row["name"], row["name"]),
            str(row["evaluated_images"]),
            *(_number(row[key]) for key in (*_PIXELS, "pointing", "mass")),
            *(f"{row[key]:,}" for key in ("tp", "fp", "fn")),
        )
        for row in summary["maps"]
    )
    caption = "Maps against annotated artifacts, over all pixels of the annotated fakes together"
    return Table(caption, header, rows)


def _drop_empty_columns(table: Table) -> Table:
    """The table without the columns that have no data in any row."""
    empty = {NOTHING, _CLASSES[None]}
    kept = [i for i in range(len(table.header)) if {row[i] for row in table.rows} - empty]
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return Table(table.caption, tuple(table.header[i] for i in kept), rows)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"
