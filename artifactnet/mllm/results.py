"""The figures of a HEIE as tables for people: a Markdown page and terminal lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artifactnet.engine import heatmap_results
from artifactnet.engine.results import JSON, MARKDOWN, heading, judged, table, write_page

__all__ = ["JSON", "MARKDOWN", "markdown", "terminal", "write"]

_SOURCES = {
    "generate": "a text that the model wrote",
    "template": "a fixed text, nothing generated",
    "given": "the annotated text",
}


def write(folder: Path, results: dict[str, Any]) -> None:
    """Write ``results.json`` and ``results.md``, both atomically."""
    write_page(folder, results, markdown(results))


def markdown(results: dict[str, Any]) -> str:
    """The results as a Markdown page; every figure has its counts beside it."""
    lines = [
        *heading(results),
        f"{judged(results)}; HEIE on `{results['model']['base']}` of epoch "
        f"{results['model']['epoch']}. Heatmap and score were read from "
        f"{_SOURCES[results['text']]}.",
        "",
    ]
    for title, header, row, note in _tables(results):
        lines += [f"## {title}", "", *table(header, [row]), "", note, ""]
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
    found: list[tuple[str, Sequence[str], Sequence[str], str]] = [
        (section.title, section.header, section.row, section.note)
        for section in heatmap_results.sections(results, "each at its own size")
    ]
    texts = results["explanations"]
    if texts:
        found.append(_explanations(texts))
    return found


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
