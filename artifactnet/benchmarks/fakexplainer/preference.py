"""Which system people prefer, from a file of votes (FakeXplainer, Fig. 3).

A line is ``{"image", "a", "b", "choice", "voter"}``: ``a`` and ``b`` name the two systems in the
order in which their answers were shown, ``choice`` is ``"a"``, ``"b"`` or ``"neutral"``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifactnet.benchmarks.fakexplainer.rows import name_of, read_rows
from artifactnet.data.text import brief
from artifactnet.evaluation.tables import markdown_table
from artifactnet.metrics.preference import CHOICES, Cell, Vote, preference_matrix
from artifactnet.names import visible
from artifactnet.types import ArtifactNetError

KEYS = ("image", "a", "b", "choice", "voter")


def read_votes(path: str | Path) -> list[Vote]:
    """Votes of a file, in its order.

    Raises:
        ArtifactNetError: see `rows.read_rows`; a name is no text, a choice is unknown, or a system
            is compared with itself.
    """
    votes = []
    for where, row in read_rows(Path(path), KEYS):
        image, a, b, voter = (name_of(row, key, where) for key in ("image", "a", "b", "voter"))
        if a == b:
            raise ArtifactNetError(f"{where}: 'a' and 'b' are both {brief(a)}; name two systems")
        if row["choice"] not in CHOICES:
            raise ArtifactNetError(
                f"{where}: 'choice' must be one of {', '.join(CHOICES)}, not {brief(row['choice'])}"
            )
        votes.append(Vote(image, a, b, row["choice"], voter))
    return votes


def score_preference(path: str | Path) -> dict[str, Any]:
    """Every system against every other: JSON-ready ``systems``, ``cells``, ``votes``, ``warnings``.

    Raises:
        ArtifactNetError: those of `read_votes`.
    """
    matrix = preference_matrix(read_votes(path))
    warnings = []
    if matrix.repeated:
        warnings.append(
            f"repeated votes left out: {matrix.repeated}; of several votes of one voter on one "
            "image and two systems the first counts"
        )
    cells = [
        {"system": one, "opponent": other, **matrix.cells[one, other]._asdict()}
        for one in matrix.systems
        for other in matrix.systems
        if (one, other) in matrix.cells
    ]
    return {
        "systems": list(matrix.systems),
        "cells": cells,
        "votes": matrix.votes,
        "warnings": warnings,
    }


def preference_page(result: dict[str, Any]) -> str:
    """What `score_preference` returns as a Markdown page."""
    systems = result["systems"]
    cells = {
        (cell["system"], cell["opponent"]): Cell(*(cell[key] for key in Cell._fields))
        for cell in result["cells"]
    }
    matrix = [
        [visible(one), *(_share(cells.get((one, other))) for other in systems)] for one in systems
    ]
    pairs = [
        (one, other)
        for k, one in enumerate(systems)
        for other in systems[k + 1 :]
        if (one, other) in cells
    ]
    rows = [
        [f"{visible(one)} : {visible(other)}", *_details(cells[one, other])] for one, other in pairs
    ]
    header = ("pair", "wins", "losses", "neutral", "share of wins", "95 % interval", "p")
    lines = [
        "# Preference",
        "",
        f"Share of the {result['votes']} votes that a system (row) won against another (column); "
        "neutral votes are counted apart.",
        "",
        *markdown_table(["", *map(visible, systems)], matrix),
        "",
        *markdown_table(header, rows),
        "",
        "Interval: Wilson's. p: exact, two-sided, of both being preferred equally often.",
        *(f"\nWARNING: {text}" for text in result["warnings"]),
    ]
    return "\n".join(lines) + "\n"


def _share(cell: Cell | None) -> str:
    return "" if cell is None else "-" if cell.rate is None else f"{cell.rate:.1%}"


def _details(cell: Cell) -> list[str]:
    counts = [str(cell.wins), str(cell.losses), str(cell.neutral)]
    if cell.rate is None:
        return [*counts, "-", "-", "-"]
    return [*counts, f"{cell.rate:.1%}", f"{cell.low:.1%} to {cell.high:.1%}", f"{cell.p:.3g}"]
