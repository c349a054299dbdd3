"""The tables of a review: answers and descriptions of annotators, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from artifactnet.data.text import brief, read_text
from artifactnet.files import write_text
from artifactnet.types import ArtifactNetError

ANSWERS = ("entity", "annotator", "question", "answer")
TEXTS = ("entity", "annotator", "dimension", "text")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: who said what about which question or dimension of an entity.

    ``where`` is ``FILE:LINE``.
    """

    where: str
    entity: str
    annotator: str
    about: str
    said: str


def read_table(path: Path, columns: tuple[str, ...]) -> list[Row]:
    """Rows of a table in which something was said; blank ones are left out.

    Args:
        path: UTF-8, with commas, or with semicolons as spreadsheets of some countries write.
        columns: `ANSWERS` or `TEXTS`; may stand in any order.

    Raises:
        ArtifactNetError: the file cannot be read, has other columns, or a row has too few or too
            many cells, or no annotator.
    """
    text = read_text(path)
    head = text.partition("\n")[0]
    delimiter = ";" if head.count(";") > head.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    order: list[int] | None = None
    line = 1
    try:
        for cells in reader:
            where, line = f"{path}:{line}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if order is None:
                found = [cell.strip() for cell in cells]
                if sorted(found) != sorted(columns):
                    raise ArtifactNetError(
                        f"{where}: the columns must be {', '.join(columns)}, not "
                        f"{brief(', '.join(found))}"
                    )
                order = [found.index(column) for column in columns]
                continue
            if len(cells) != len(columns):
                raise ArtifactNetError(
                    f"{where}: a row must have {len(columns)} cells, not {len(cells)}; a text with "
                    "commas or line breaks needs quotation marks"
                )
            entity, annotator, about, said = (cells[place] for place in order)
            if not said.strip():
                continue
            if not annotator.strip():
                raise ArtifactNetError(f"{where}: 'annotator' is blank")
            rows.append(Row(where, entity, annotator.strip(), about.strip(), said.strip()))
    except csv.Error as error:
        raise ArtifactNetError(f"{path}:{line}: not readable as CSV ({error})") from None
    if order is None:
        raise ArtifactNetError(f"{path}: has no row with the names of its columns")
    return rows


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Atomically write a table."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())
