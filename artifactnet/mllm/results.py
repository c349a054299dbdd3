"""The figures of a HEIE as tables for people: a Markdown page and terminal lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artifactnet import files
from artifactnet.engine import heatmap_results
from artifactnet.engine.results import JSON, MARKDOWN

__all__ = ["JSON", "MARKDOWN", "markdown", "terminal", "write"]

_SOURCES = {
    "generate": "a text that the model wrote",
    "template": "a fixed text, nothing generated",
    "given": "the annotated text",
}


def write(folder: Path, results: dict[str, Any]) -> None:
    """Write ``results.json`` and ``results.md``, both atomically."""
    files.write_json(folder / JSON, results)
    files.write_text(folder / MARKDOWN, markdown(results))


def markdown(results: dict[str, Any]) -> str:
    """The results as a Markdown page; every figure has its counts beside it."""
    data = results["data"]
    where = f"`{data['name']}`" + (f" (`{data['root']}`)" if data["root"] else "")
    lines = [f"# {results['run']}", ""]
    for notice in (*results["notices"], *results["data_warnings"]):
        lines += [f"> **Warning:** {notice}", ""]
    lines += [
        f"{results['images']} images of the {data['split']} split of {where}; HEIE on "
        f"`{results['model']['base']}` of epoch {results['model']['epoch']}. Heatmap and score "
        f"were read from {_SOURCES[results['text']]}.",
        "",
    ]
    for title, header, row, note in _tables(results):
        rule = ["---"] * len(header)
        table = ["| " + " | ".join(cells) + " |" for cells in (header, rule, row)]
        lines += [f"## {title}", "", *table, "", note, ""]
    return "\n".join(lines)


def terminal(results: dict[str, Any]) -> str:
    """The same figures as lines for a terminal."""
    return "\n".join(
        f"{title.lower()}:  " + "  ".join(f"{k} {v}" for k, v in zip(header, row, strict=True))
        for title, header, row, _ in _tables(results)
    )


def _tables(
    results: dict[str, Any],
) -> list[tuple[str, Sequence[str], Sequence[str], str]]:
    """Title, header, row and note of each table."""
    found: list[tuple[str, Sequence[str], Sequence[str], str]] = []
    saliency, scores = results["saliency"], results["scores"]
    for section in heatmap_results.sections(results):
        note = _heatmap_note(saliency, scores)
        found.append((section.title, section.header, section.row, note))
    texts = results["explanations"]
    if texts:
        found.append(_explanations(texts))
    return found


def _heatmap_note(saliency: dict[str, Any] | None, scores: dict[str, Any] | None) -> str:
    parts = ["No annotated image."]
    if saliency:
        marked = saliency["images"] - saliency["empty_images"]
        parts = [
            f"Means over {saliency['images']} annotated images, each at its own size; MSE (GT=0) "
            f"over the {saliency['empty_images']} without any artifact, real ones among them; "
            f"KLD, CC, SIM, AUC-Judd and NSS over the {marked} with one. "
            f"{saliency['unannotated_images']} images without annotation took no part."
        ]
    judged = "No image has a score."
    if scores:
        judged = f"PLCC and SRCC over {scores['images']} images with a score."
    return " ".join([*parts, judged])


def _explanations(texts: dict[str, Any]) -> tuple[str, Sequence[str], Sequence[str], str]:
    header, row = ["perplexity"], [f"{texts['perplexity']:.3f}"]
    notes = [f"Perplexity of the annotated texts, over {texts['tokens']} tokens."]
    if texts["texts"]:
        header += ["BLEU", "ROUGE-L"]
        row += [f"{texts['BLEU']:.4f}", f"{texts['ROUGE-L']:.4f}"]
        notes.append(
            f"BLEU and ROUGE-L of {texts['texts']} generated texts with the annotated ones, but "
            "for headings and closing sentences, which all share; "
            f"{texts['mended']} answers had to be mended before they could be read."
        )
    judged = texts["similarity"]
    if judged:
        header.append("similarity")
        row.append("-" if judged["mean"] is None else f"{judged['mean']:.3f}")
        notes.append(
            f"Similarity as {judged['model']} judges it; it failed on {judged['failed']} texts."
        )
    return "Explanations against annotated ones", header, row, " ".join(notes)
