"""The tables of language models on X-AIGD as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from artifactnet.evaluation.tables import markdown_table
from artifactnet.names import visible
from artifactnet.taxonomy import CATEGORIES

_TITLES = {
    "presence": "Presence of artifact categories (X-AIGD, Table 9)",
    "judgment": "Authenticity judgment (X-AIGD, Table 10)",
    "masks": "Masks, category-agnostic (X-AIGD, Table 11)",
    "instances": "Boxes with categories (X-AIGD, Table 12)",
}


def page(results: Mapping[str, Any]) -> str:
    """What a function of `baselines` returns as a Markdown page."""
    task, figures = results["task"], results["figures"]
    body = {
        "presence": _presence,
        "judgment": _judgment,
        "masks": _masks,
        "instances": _instances,
    }[task](figures)
    lines = [f"# {_TITLES[task]}", "", f"`{visible(results['model'])}`", "", *body, ""]
    lines += [f"WARNING: {visible(text)}\n" for text in results["warnings"]]
    return "\n".join(lines).rstrip("\n") + "\n"


def _presence(figures: Mapping[str, Any]) -> list[str]:
    header = ("category", "F1", "random F1", "precision", "recall", "prevalence", "unreadable")
    found = figures["categories"]
    names = ("f1", "random_f1", "precision", "recall", "prevalence")
    rows = [
        [
            item.short,
            *(f"{found[item.label][name]:.1%}" for name in names),
            str(found[item.label]["unreadable"]),
        ]
        for item in CATEGORIES
    ]
    return [
        *markdown_table(header, rows),
        "",
        f"{figures['images']} generated images, a question for each category; any list of boxes "
        "that is not empty counts as present, an answer that cannot be read as absent. Random: "
        "guessing with probability 1/2, q / (q + 1/2) for the prevalence q.",
    ]


def _judgment(figures: Mapping[str, Any]) -> list[str]:
    header = ("real Acc", "fake Acc", "mean", "photographs", "generated", "unreadable")
    names = ("real_accuracy", "fake_accuracy", "balanced_accuracy")
    row = [f"{figures[name]:.1%}" for name in names]
    row += [str(figures[name]) for name in ("real", "fake", "unreadable")]
    return [
        *markdown_table(header, [row]),
        "",
        "An answer that says neither, or both, is wrong.",
    ]


def _masks(figures: Mapping[str, Any]) -> list[str]:
    names = ("IoU", "PixP", "PixR", "PixF1")
    header = (*names, "images", "without a mask", "photographs", "of them marked")
    row = [f"{figures[name]:.1%}" for name in names]
    row += [str(figures[name]) for name in ("evaluated_images", "zero_prediction_images")]
    row += [str(figures["real_images"]), str(figures["real_marked"])]
    return markdown_table(header, [row])


def _instances(figures: Mapping[str, Any]) -> list[str]:
    header = ("category", "F1@0.5", "P@0.5", "R@0.5", "boxes right", "boxes wrong", "missed")
    rows = []
    for item in CATEGORIES:
        found = figures["categories"].get(item.label)
        if found is None:
            rows.append([item.short, *["0.0%"] * 3, "0", "0", "-"])
            continue
        shares = [f"{found[name]:.1%}" for name in header[1:4]]
        rows.append([item.short, *shares, *(str(found[name]) for name in ("TP", "FP", "FN"))])
    enough = "at least" if figures["inclusive"] else "more than"
    return [
        *markdown_table(header, rows),
        "",
        f"{figures['images']} generated images, {figures['boxes']} boxes; {figures['dropped']} "
        f"could not be used. A box is right if {enough} half of it lies on an instance of its "
        "category; right ones are counted by instance.",
    ]
