"""Tables of Q-Real's figures as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifactnet.data.qreal import QUESTIONS
from artifactnet.evaluation.tables import markdown_table
from artifactnet.files import write_json, write_text
from artifactnet.names import visible

RESULTS = "results"  # .json and .md


def write_results(folder: str | Path, results: Mapping[str, Any]) -> None:
    """Write ``results.json`` and ``results.md``, each atomically."""
    folder = Path(folder)
    write_json(folder / f"{RESULTS}.json", results)
    write_text(folder / f"{RESULTS}.md", results_page(results))


def results_page(results: Mapping[str, Any]) -> str:
    """The results of `score.score_qreal` or `benchmark.run_benchmark` as a Markdown page."""
    figures = results["figures"]
    lines = [
        f"# Q-Real: {visible(results['model'])}",
        "",
        f"{figures['images']} images (split {results['split']}) with {figures['entities']} "
        f"entities of `{visible(results['data'])}`.",
    ]
    if figures["unverified"]:
        lines.append("**Not verified by people; see the warnings.**")
    lines.append("")
    if figures["object"] is not None:
        lines += _object_table(figures["object"])
        if "context" in results:
            shown = "crop" if results["context"] == "crop" else "whole image"
            added = "left out" if results["tuned"] else "added"
            lines += [f'Shown: the {shown}; "Answer with Yes or No." was {added}.', ""]
    if figures["image"] is not None:
        lines += _image_tables(figures["image"], results["auc"])
    lines += [f"WARNING: {visible(text)}\n" for text in figures["warnings"]]
    return "\n".join(lines).rstrip("\n") + "\n"


def object_rows(found: Mapping[str, Any]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and rows of the figures of ObjectQA, a row for each question and their mean."""
    header = (
        *("question", "Acc", "Precision", "Recall", "F1", "AUC"),
        *("share of Yes", "answers", "unreadable"),
    )
    rows = [
        [
            key,
            *(_number(found["questions"][key][name]) for name in _SCORES),
            _number(found["questions"][key]["yes"]),
            str(found["questions"][key]["answers"]),
            str(found["questions"][key]["unreadable"]),
        ]
        for key in QUESTIONS
    ]
    rows.append(["mean", *(_number(found["mean"][name]) for name in _SCORES), "", "", ""])
    return header, rows


def _object_table(found: Mapping[str, Any]) -> list[str]:
    return [
        "## ObjectQA",
        "",
        *markdown_table(*object_rows(found)),
        "",
        "Yes is the positive class of every question; an answer that cannot be read counts as "
        "wrong. AUC is that of p(Yes) from the logits of the answer's first token. F1 depends on "
        "the share of Yes.",
        "",
    ]


_SCORES = ("accuracy", "precision", "recall", "f1", "auc")


def image_rows(found: Mapping[str, Any]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and rows of the figures of ImageQA, a row for each dimension and for portraits."""
    header = (
        *("dimension", "IoU", "detection rate", "AUC", "LLM-Score", "LLM-Score, all"),
        *("recall", "none", "boxes", "true boxes", "images"),
    )
    rows = []
    for title, one in _groups(found):
        llm = one["llm"] or {"score": None, "all": None}
        rows.append(
            [
                title,
                *(_number(one[key]) for key in _SHARES),
                *(_number(llm[key]) for key in ("score", "all")),
                *(_number(one[key]) for key in ("recall", "silent")),
                *(f"{one[key]:.2f}" for key in ("boxes", "truth")),
                str(one["images"]),
            ]
        )
    return header, rows


_SHARES = ("iou", "detection_rate", "auc")


def _groups(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    titles = {"portraits": "plausibility, portraits"}
    names = ("realism", "plausibility", "portraits")
    return [(titles.get(name, name), found[name]) for name in names if found[name] is not None]


def _image_tables(found: Mapping[str, Any], area: str) -> list[str]:
    means = [
        [title, *(_number(one["per_image"][key]) for key in _SHARES)]
        for title, one in _groups(found)
    ]
    how = "exactly integrated" if area == "exact" else "by trapezoids over 0, 0.1, ..., 1"
    return [
        "## ImageQA",
        "",
        *markdown_table(*image_rows(found)),
        "",
        "Boxes are paired for the largest sum of IoU. IoU: mean over all pairs; detection rate: "
        f"pairs above 0.5 over predicted boxes; AUC: of that rate over all thresholds, {how}. "
        "LLM-Score: similarity of descriptions over pairs that overlap; all: over true entities "
        "with a description, 0 without such a pair. These reward silence, so recall (pairs above "
        "0.5 over true boxes), the share of images whose answer is none, and boxes an image stand "
        "beside them.",
        "",
        "Means over images with any box:",
        "",
        *markdown_table(("dimension", "IoU", "detection rate", "AUC"), means),
        "",
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
