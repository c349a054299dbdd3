"""The figures of a FakeXplainer as a page and as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifactnet.evaluation import results as tables
from artifactnet.evaluation.tables import markdown_table
from artifactnet.names import visible
from artifactnet.vlm.fakexplainer.figures import COUNTS, SHARES


def write(folder: Path, results: dict[str, Any]) -> None:
    """Write ``results.json`` and ``results.md`` of a FakeXplainer, both atomically."""
    tables.write_page(folder, results, markdown(results))


def markdown(results: dict[str, Any]) -> str:
    """The results of a FakeXplainer as a Markdown page; every figure has its counts beside it."""
    model, figures = results["model"], results["fakexplainer"]
    everything = figures["all"]
    about = ""
    if model is not None:
        of_epoch = "" if model["epoch"] is None else f", after {model['epoch']} epochs"
        about = f"; `{model['base']}`{of_epoch}"
    left_out = "" if results["drop"] == "none" else f" Answers are without {results['drop']}."
    lines = [
        *tables.page_heading(results),
        f"{tables.describe_images(results)}{about}.{left_out}",
        "",
        "## Verdicts, regions and texts",
        "",
        *markdown_table(*figures_table(figures)),
        "",
        "Acc: right verdicts; an answer without a verdict is wrong. IoU of the areas that "
        f"predicted and annotated boxes cover: mean over {everything['iou_images']} annotated "
        "generated images, 0 where the verdict is not generated; pooled: of the summed areas; "
        f"matched: box by box. BLEU-2 and ROUGE-L over {everything['texts']} generated images "
        "with captions, tags included. Strict form: answers that follow the grammar in every "
        f"detail. Reward over {everything['reward_images']} images: what GRPO gives with w_G = 1, "
        "the sum of R_C (1 if the verdict is right), R_F (1 if the form is strict) and, where "
        "answers have boxes, R_G (they overlap the annotated ones: 1.1 times the IoU, at most 1; "
        "of a photograph 1 without boxes, else 0). The last four columns are counts: "
        "answers without a verdict, answers that reached the limit of their length, boxes that "
        "could not be used, and images without an answer.",
        "",
    ]
    if figures["tags"] is not None:
        header = ("tag", "Acc with it", "Acc without it", "share", "images")
        lines += [
            "## Accuracy by tag",
            "",
            *markdown_table(header, [_tag_cells(row) for row in figures["tags"]]),
            "",
            "Over generated images whose tags are annotated (FakeXplainer, Table 7).",
            "",
        ]
    return "\n".join(lines)


def terminal(results: dict[str, Any]) -> str:
    """The results of a FakeXplainer as aligned columns for a terminal."""
    header, rows = figures_table(results["fakexplainer"])
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    )


def figures_table(figures: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of a table: all images, photographs, groups and generators."""
    rows = {"all": figures["all"]}
    if figures["real"] is not None:
        rows["real"] = figures["real"]
    rows |= figures["groups"] | figures["generators"]
    header = ("images of", "images", *SHARES, *COUNTS)
    return header, [
        (
            visible(name),
            str(row["images"]),
            *(_share(row[key]) for key in SHARES.values()),
            *(str(row[key]) for key in COUNTS.values()),
        )
        for name, row in rows.items()
    ]


def _tag_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    shares = (_share(row[key]) for key in ("with_tag", "without_tag", "share"))
    return (row["tag"], *shares, str(row["images"]))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
