"""The figures of an evaluation as tables for people, and where they are written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from artifactnet import files
from artifactnet.config import Config
from artifactnet.evaluation.selection import ALL
from artifactnet.evaluation.tables import markdown_table

JSON = "results.json"
MARKDOWN = "results.md"
INDIFFERENT = ("batch_size", "eval_batch_size", "workers", "check")  # `data` keys: same figures

# column -> field of `artifactnet.metrics.saliency.SaliencyMetric`, in the papers' order
SALIENCY = {
    "MSE (all)": "MSE",
    "MSE (GT=0)": "MSE GT=0",
    "KLD": "KLD",
    "CC": "CC",
    "SIM": "SIM",
    "AUC-Judd": "AUC-Judd",
    "NSS": "NSS",
}
SCORES = ("PLCC", "SRCC")
_GROUPS = ("marked", "real", "fake")  # of images, for which agreement with the teacher is reported
_PIXELS = ("IoU", "PixP", "PixR", "PixF1")
_AUTHENTICITY = ("images of", "fake", "real", "balanced accuracy", "precision", "recall", "F1")


def subfolder(config: Config, decisive: Mapping[str, Any], kind: str = "", of: str = "") -> Path:
    """Where results go that are not of a run's own data: ``evaluations/<data>-<fingerprint>``.

    Args:
        config: of the evaluation.
        decisive: all that decides its figures; JSON-ready.
        kind: put between data and fingerprint, for people.
        of: what is evaluated, if that is not a run with a folder of its own.
    """
    text = json.dumps(decisive, sort_keys=True) + of
    fingerprint = hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
    root = f"-{Path(config.data.root).resolve().name}" if config.data.root else ""
    return Path("evaluations") / f"{config.data.name}{root}{kind}-{fingerprint}"


def read_training(folder: Path) -> dict[str, Any] | None:
    """What the run's earlier results report about its training."""
    path = folder / JSON
    if not path.is_file():
        return None
    earlier: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return earlier.get("training")


def write(folder: Path, results: dict[str, Any]) -> None:
    """Write ``results.json`` and ``results.md`` of a detector, both atomically."""
    write_page(folder, results, markdown(results))


def write_page(folder: Path, results: dict[str, Any], page: str) -> None:
    """Write ``results.json``, and the Markdown page made of it as ``results.md``."""
    files.write_json(folder / JSON, results)
    files.write_text(folder / MARKDOWN, page)


def print_results(results: dict[str, Any], lines: str, folder: Path) -> None:
    """Print ``lines`` (the figures), after what must be known before trusting them."""
    for text in (*results["notices"], *results["data_warnings"]):
        print(f"WARNING: {text}")
    print(lines)
    print(f"\nresults    {folder / MARKDOWN}, {folder / JSON}", flush=True)


class Section(NamedTuple):
    """One table of one row."""

    title: str  # of the section of a page
    label: str  # of the line in a terminal
    header: tuple[str, ...]
    row: tuple[str, ...]
    note: str  # how many images, and what the figures are


def page_sections(sections: Sequence[Section]) -> list[str]:
    """Lines of a page: a heading, the table and the note of each section."""
    lines: list[str] = []
    for section in sections:
        table = markdown_table(section.header, [section.row])
        lines += [f"## {section.title}", "", *table, "", section.note, ""]
    return lines


def terminal_sections(sections: Sequence[Section]) -> list[str]:
    """A line for a terminal of each section."""
    return [
        f"{section.label}:  "
        + "  ".join(f"{key} {cell}" for key, cell in zip(section.header, section.row, strict=True))
        for section in sections
    ]


def heatmap_sections(results: dict[str, Any], size: str = "at the model's size") -> list[Section]:
    """Tables of a heatmap head's figures: against annotation, and against the teacher.

    ``results.json`` files without such figures (also those written before there were heatmap
    heads) give no section. ``size`` names, in words, where the heatmaps were compared.
    """
    found = []
    if results.get("saliency") or results.get("scores"):
        found.append(_annotation(results.get("saliency"), results.get("scores"), size))
    if results.get("teacher"):
        found.append(_teacher(results["teacher"]))
    return found


def _annotation(
    saliency: dict[str, Any] | None, scores: dict[str, Any] | None, size: str
) -> Section:
    cells = [_number(name, (saliency or {}).get(name)) for name in SALIENCY.values()]
    cells += [_number(name, (scores or {}).get(name)) for name in SCORES]
    notes = ["No annotated image."]
    if saliency:
        marked = saliency["images"] - saliency["empty_images"]
        notes = [
            f"Means over {saliency['images']} annotated images {size}; MSE (GT=0) "
            f"over the {saliency['empty_images']} without any artifact, real ones among them; KLD, "
            f"CC, SIM, AUC-Judd and NSS over the {marked} with one. "
            f"{saliency['unannotated_images']} images without annotation took no part."
        ]
    if scores:
        notes.append(f"PLCC and SRCC over {scores['images']} images with a score.")
    else:
        notes.append("No image has a score.")
    header = (*SALIENCY, *SCORES)
    title = "Heatmap and score against annotation"
    return Section(title, "heatmap and score", header, tuple(cells), " ".join(notes))


def _teacher(teacher: dict[str, Any]) -> Section:
    groups = {"": teacher} | {f" ({key})": teacher[key] for key in _GROUPS if key in teacher}
    names = [(name, group) for group in groups for name in ("CC", "MSE")]
    header = tuple(f"{name}{group}" for name, group in names)
    cells = tuple(_number(name, groups[group][name]) for name, group in names)
    note = (
        f"Means over {teacher['images']} images; the CC leaves out {teacher['constant_images']} on "
        "which the teacher's heatmap is constant. Pixels that the teacher never saw do not count."
    )
    if "marked" in teacher:
        marked, real, fake = (teacher[key]["images"] for key in _GROUPS)
        note += (
            f" Marked are the {marked} images on which the teacher's heatmap exceeds 0.5 somewhere "
            f"(the papers' GT > 0); {real} are real, {fake} fake."
        )
    if "name" in teacher:
        note += f" The teacher is {teacher['name']}."
    return Section("Heatmap against the teacher's", "with the teacher", header, cells, note)


def _number(name: str, value: float | None) -> str:
    """Digits as in the papers; a dash where no image has the figure."""
    if value is None:
        return "-"
    return f"{value:.5f}" if name.startswith("MSE") else f"{value:.3f}"


def page_heading(results: dict[str, Any]) -> list[str]:
    """Title of a page, and what must be known before trusting it."""
    lines = [f"# {results['run']}", ""]
    for notice in (*results["notices"], *results["data_warnings"]):
        lines += [f"> **Warning:** {notice}", ""]
    return lines


def describe_images(results: dict[str, Any]) -> str:
    """Which images were evaluated, in words."""
    data = results["data"]
    where = f"`{data['name']}`" + (f" (`{data['root']}`)" if data["root"] else "")
    if data["split"] == ALL:
        return f"{results['images']} images, all of {where}"
    return f"{results['images']} images of the {data['split']} split of {where}"


def markdown(results: dict[str, Any]) -> str:
    """The results of a detector as a Markdown page; every figure has its counts beside it."""
    epoch = results["model"]["epoch"]
    of_epoch = "" if epoch is None else f"; model of epoch {epoch}"
    lines = [
        *page_heading(results),
        f"{describe_images(results)}{of_epoch}. An image is called fake if its probability is at "
        f"least {results['threshold']}.",
        "",
        "## Authenticity judgment",
        "",
        *markdown_table(*_authenticity(results)),
        "",
        "A generator's row sets its fakes against all real images.",
        "",
        *_verdicts(results.get("verdicts")),
        *_by_ratio(results["by_artifact_ratio"]),
        "## Heatmap against annotated artifacts",
        "",
        *_heatmap(results),
        "",
        *page_sections(heatmap_sections(results)),
        "## Segmentation against annotated artifacts",
        "",
        *_masks(results),
    ]
    return "\n".join(lines) + "\n"


def keep_defined(figures: dict[str, Any]) -> dict[str, Any]:
    """Authenticity figures, None where they are of images of one class and need both.

    What remains is the share of these images that are called what they are: ``recall`` of fakes,
    ``real_accuracy`` of real images; the ``note`` says so.
    """
    scores = figures["all"]
    if bool(scores["real"]) == bool(scores["fake"]):
        return figures
    only, key = ("real", "real_accuracy") if scores["real"] else ("fake", "recall")
    undefined = {"balanced_accuracy", "precision", "recall", "f1", "auc", "fake_accuracy"}
    undefined -= {"recall", "fake_accuracy"} if only == "fake" else set()
    undefined |= {"real_accuracy"} if only == "fake" else set()
    note = f"only {only} images: {key} is the share of them that is called {only}; nothing else can"
    note += " be computed without the other class"

    def cleared(row: dict[str, Any]) -> dict[str, Any]:
        return row | dict.fromkeys(undefined) | {"note": note}

    generators = {name: cleared(row) for name, row in figures["generators"].items()}
    return {"all": cleared(scores), "generators": generators}


def _authenticity(results: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows, all images first, then each generator; of one class its recall alone."""
    scores = {"all": results["authenticity"]["all"], **results["authenticity"]["generators"]}
    keys: tuple[str, ...] = ("balanced_accuracy", "precision", "recall", "f1")
    header: tuple[str, ...] = _AUTHENTICITY
    if scores["all"]["balanced_accuracy"] is None:
        keys = ("recall",) if scores["all"]["fake"] else ("real_accuracy",)
        header = ("images of", "fake", "real", "recall" if scores["all"]["fake"] else "called real")
    return header, [
        (name, str(row["fake"]), str(row["real"]), *(f"{row[key]:.4f}" for key in keys))
        for name, row in scores.items()
    ]


def _verdicts(found: dict[str, Any] | None) -> list[str]:
    """Shares of three verdicts; nothing of a model without two limits."""
    if found is None:
        return []
    header = ("images of", "images", "fake", "uncertain", "real")
    return [
        "## Three verdicts",
        "",
        *markdown_table(header, _verdict_rows(found)),
        "",
        f"Fake from a probability of {found['fake_from']:g}, real below {found['real_below']:g}, "
        "uncertain between. Real images called fake are false alarms, fakes called real are "
        "missed.",
        "",
    ]


def _verdict_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Photographs, all fakes, and the generators where there are several."""
    rows = {"real": found["real"], "all fakes": found["fake"]}
    if len(found["generators"]) > 1:
        rows |= found["generators"]
    return [
        (name, str(row["images"]), *(f"{row[key]:.4f}" for key in ("fake", "uncertain", "real")))
        for name, row in rows.items()
        if row["images"]
    ]


def _verdict_line(found: dict[str, Any]) -> str:
    """For a terminal."""
    parts = []
    names = {"real": ("false alarms", "fake"), "fake": ("missed fakes", "real")}
    for group, (error, verdict) in names.items():
        row = found[group]
        if row["images"]:
            parts.append(f"{error} {row[verdict]:.4f}")
            parts.append(f"{group} images uncertain {row['uncertain']:.4f}")
    limits = f"fake from {found['fake_from']:g}, real below {found['real_below']:g}"
    return f"three verdicts ({limits}):  " + "  ".join(parts)


def _by_ratio(bins: list[dict[str, float]]) -> list[str]:
    """How many annotated fakes were found, by the share of artifact pixels (X-AIGD Fig. 3)."""
    rows = [
        (f"up to {row['up_to']:.0%}", str(row["images"]), f"{row['accuracy']:.4f}")
        for row in bins
        if row["images"]
    ]
    header = ("artifact pixels", "annotated fakes", "called fake")
    return [*markdown_table(header, rows), ""] if rows else []


def _heatmap(results: dict[str, Any]) -> list[str]:
    row = results["heatmap"]
    if row is None:
        return [f"None: {results['no_heatmap']}."]
    header = (*_PIXELS, "TP", "FP", "FN", "images", "of them with an empty map")
    counts = ("tp", "fp", "fn", "evaluated_images", "zero_prediction_images")
    lines = [
        *markdown_table(header, [_cells(row, counts)]),
        "",
        "Category-agnostic, counted over all pixels of the annotated fakes at the model's size; a "
        f"pixel is called artifact if the heatmap is above {results['map_threshold']}. "
        f"{row['unannotated_images']} fakes without annotation took no part.",
    ]
    generators = _several(results.get("heatmap_generators"))
    if generators:
        rows = [(name, *_cells(row, counts)) for name, row in generators.items()]
        lines += ["", *markdown_table(("generator", *header), rows)]
    return lines


def _cells(row: dict[str, Any], counts: Sequence[str]) -> tuple[str, ...]:
    return (*(f"{row[key]:.4f}" for key in _PIXELS), *(str(row[key]) for key in counts))


def _several(generators: dict[str, Any] | None) -> dict[str, Any]:
    """Figures per generator if there are several; of a single one they are those of all."""
    return generators if generators and len(generators) > 1 else {}


def _masks(results: dict[str, Any]) -> list[str]:
    tables = results["masks"]
    if tables is None:
        return [f"None: {results['no_masks']}."]
    everything = tables["all"]
    presence = [
        (name, *(f"{row[key]:.4f}" for key in ("precision", "recall", "f1")))
        for name, row in results["presence"].items()
    ]
    lines = [
        *markdown_table(("category", *_PIXELS, "TP", "FP", "FN"), _mask_rows(everything)),
        "",
        "Counted over all pixels of the annotated fakes at the model's size "
        f"({everything['evaluated_images']} images, {everything['zero_prediction_images']} of them "
        "with an empty prediction). A pixel is called artifact if the probability of any is above "
        f"{results['map_threshold']}. {everything['unannotated_images']} fakes without annotation "
        "took no part.",
        "",
        *markdown_table(("image has", "precision", "recall", "F1"), presence),  # X-AIGD Table 9
    ]
    generators = [(name, table) for name, table in tables.items() if name != "all"]
    if len(generators) > 1:
        rows = [(name, *_mask_rows(table)[0][1:]) for name, table in generators]
        lines += ["", *markdown_table(("generator", *_PIXELS, "TP", "FP", "FN"), rows)]
    return lines


def _mask_rows(table: dict[str, Any]) -> list[tuple[str, ...]]:
    """All categories as one, then each, of one generator."""
    return [
        (name, *(f"{row[key]:.4f}" for key in _PIXELS), *(str(row[k]) for k in ("tp", "fp", "fn")))
        for name, row in table.items()
        if isinstance(row, dict)
    ]


def terminal(results: dict[str, Any]) -> str:
    """The results of a detector as aligned columns for a terminal."""
    header, scores = _authenticity(results)
    rows = [header, *scores]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if results.get("verdicts"):
        lines += ["", _verdict_line(results["verdicts"])]
    heatmap, masks = results["heatmap"], results["masks"]
    threshold = results["map_threshold"]
    if masks is not None:
        first = next(row for row in masks["all"].values() if isinstance(row, dict))
        lines += ["", _pixel_line(f"masks at {threshold}", first, masks["all"], "mask")]
    elif heatmap is None:
        lines += ["", f"no heatmap: {results['no_heatmap']}"]
    if heatmap is not None:
        lines += ["", _pixel_line(f"heatmap at {threshold}", heatmap, heatmap, "map")]
        for name, row in _several(results.get("heatmap_generators")).items():
            lines.append(_pixel_line(f"  {name}", row, row, "map"))
    for line in terminal_sections(heatmap_sections(results)):
        lines += ["", line]
    return "\n".join(lines)


def _pixel_line(label: str, scores: dict[str, Any], counts: dict[str, Any], what: str) -> str:
    return (
        f"{label}:  "
        + "  ".join(f"{key} {scores[key]:.4f}" for key in _PIXELS)
        + f"  ({counts['evaluated_images']} annotated fakes, "
        f"{counts['zero_prediction_images']} with an empty {what})"
    )
