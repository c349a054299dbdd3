"""Stage 5: pages and tables for people who check annotations (Q-Real, Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from artifactnet.annotation.qreal.review_page import review_page
from artifactnet.annotation.qreal.tables import ANSWERS, TEXTS, write_table
from artifactnet.data.images import decode_image
from artifactnet.data.qreal import DIMENSIONS, PARTS, QUESTIONS, QRealEntity, read_qreal
from artifactnet.files import write_text
from artifactnet.names import visible
from artifactnet.types import ArtifactNetError


def export_review(annotations: Path, out: Path, annotators: Sequence[str]) -> int:
    """Write a page per image, a list of them, and empty tables.

    ``0001.html`` and on are self-contained; a page saves what one annotator answered as two tables.
    ``review.csv`` and ``texts.csv`` have a row for whatever an annotator can say, for those who
    prefer a spreadsheet.

    Args:
        annotations: file of `artifactnet.data.qreal`.
        out: folder, which is created; it must not hold anything.
        annotators: their names.

    Returns:
        The number of pages.

    Raises:
        ArtifactNetError: the annotations or an image cannot be read, no annotator or one twice was
            named, or the folder holds something.
        OSError: the folder cannot be written.
    """
    if not annotators or len(set(annotators)) < len(annotators):
        raise ArtifactNetError(
            f"--annotators {','.join(annotators)}: give one name or more, each once"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArtifactNetError(f"{out}: exists and is not an empty folder; give another one")
    images = read_qreal(annotations, allow_missing=True)
    out.mkdir(parents=True, exist_ok=True)
    digits = max(4, len(str(len(images))))
    links = []
    for number, image in enumerate(images, 1):
        pixels = decode_image(str(image.path), str(image.path))
        page = f"{number:0{digits}d}"
        write_text(out / f"{page}.html", review_page(image, pixels, page, annotators))
        links.append(f'<li><a href="{page}.html">{escape(visible(image.image))}</a></li>\n')
    entities = [entity for image in images for entity in image.entities]
    write_table(
        out / "review.csv",
        ANSWERS,
        ((e.id, name, key, "") for e in entities for name in annotators for key in QUESTIONS),
    )
    write_table(
        out / "texts.csv",
        TEXTS,
        ((e.id, name, key, "") for e in entities for name in annotators for key in _described(e)),
    )
    write_text(
        out / "index.html",
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>Review</title>'
        f"</head>\n<body>\n<ol>\n{''.join(links)}</ol>\n</body>\n</html>\n",
    )
    return len(images)


def _described(entity: QRealEntity) -> tuple[str, ...]:
    return (DIMENSIONS[0], *PARTS) if entity.parts is not None else DIMENSIONS
