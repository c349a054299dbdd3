"""Q-Real's annotations on one HTML page, and what a model answered beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from artifactnet.data.images import decode_image
from artifactnet.data.qreal import (
    DIMENSIONS,
    QUESTIONS,
    Dimension,
    QRealEntity,
    QRealImage,
    answer_word,
    count_unverified,
    read_qreal,
)
from artifactnet.data.regions import Corners
from artifactnet.explanation.report.encode import encode
from artifactnet.explanation.report.html import made, write_html
from artifactnet.explanation.report.items import pick_evenly
from artifactnet.explanation.report.page import prose
from artifactnet.explanation.report.tables import NOTHING, Table
from artifactnet.inference.inputs import Failure
from artifactnet.metrics.entity_boxes import pair_boxes
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.coordinates import Unit
from artifactnet.vlm.qreal.answers import EntityList
from artifactnet.vlm.qreal.figures import chosen_images, compute_figures
from artifactnet.vlm.qreal.pages import image_rows, object_rows
from artifactnet.vlm.qreal.predictions import Predictions, read_predictions

UNVERIFIED = "not verified by people"


@dataclass(frozen=True, slots=True)
class QRealReport:
    """What was written."""

    html: Path
    images: int  # on the page
    of: int  # in the split
    failures: tuple[Failure, ...]  # images that could not be read
    warnings: tuple[str, ...]


def write_qreal_report(
    annotations: str | Path,
    out: str | Path,
    predictions: Sequence[str | Path] = (),
    *,
    split: str | None = None,
    unit: Unit | None = None,
    limit: int = 500,
    title: str | None = None,
    allow_missing: bool = False,
) -> QRealReport:
    """Write one page about a file of annotations.

    Args:
        annotations: see `artifactnet.data.qreal`.
        out: HTML file to write.
        predictions: files with the answers of one model, as ``benchmark-qreal`` leaves them.
        split: ``train``, ``val``, ``test`` or ``all``; None: all, and with predictions the split
            that is scored, see `artifactnet.vlm.qreal.figures.chosen_images`.
        unit: see `artifactnet.vlm.qreal.predictions.read_predictions`.
        limit: at most this many images are shown, evenly spread over the generators.
        title: of the page; None: names of the files.
        allow_missing: see `artifactnet.data.qreal.read_qreal`.

    Raises:
        ArtifactNetError: a file cannot be read or used; no image is in the split; or ``limit`` is
            below 1.
        OSError: the page cannot be written; an older one is untouched.
    """
    if limit < 1:
        raise ArtifactNetError(f"limit must be 1 or more, not {limit}")
    everything = read_qreal(annotations, allow_missing)
    answers = read_predictions(predictions, everything, unit) if predictions else None
    images, split = chosen_images(everything, split or (None if predictions else "all"))
    groups = [(str(image.generator),) for image in images]
    shown = [images[k] for k in pick_evenly(groups, limit)]
    entries, failures = _entries(shown, answers)
    tables = [_question_table(images), *_generator_table(images)]
    if answers is None:
        warnings = _unverified(images)
    else:
        found, warnings = _model_tables(images, answers)
        tables += found
    notices = []
    if len(shown) < len(images):
        notices.append(
            f"{len(shown)} of {len(images)} images are shown, evenly spread over the generators; "
            "all figures are for all of them."
        )
    names = [Path(annotations).name, *(Path(path).name for path in predictions)]
    head = {
        "title": title or f"Q-Real: {', '.join(names)}",
        **made(),
        "warnings": warnings,
        "notices": notices,
    }
    values = {
        "head": head,
        "split": split,
        "figures": _counts(images),
        "tables": tables,
        "entries": entries,
        "failures": failures,
        "generators": sorted({image.generator for image in images if image.generator is not None}),
        "has_model": answers is not None,
        "unverified": UNVERIFIED,
    }
    write_html(out, "qreal.html", values, styles=["qreal.css"], scripts=["qreal.js"])
    return QRealReport(Path(out), len(entries), len(images), tuple(failures), tuple(warnings))


def _unverified(images: Sequence[QRealImage]) -> list[str]:
    count = count_unverified(images)
    return [f"{count} of {len(images)} images are {UNVERIFIED}."] if count else []


def _model_tables(
    images: Sequence[QRealImage], answers: Predictions
) -> tuple[list[Table], list[str]]:
    """The benchmark's figures of the tasks that were answered, and its warnings."""
    tasks = [
        task for task, found in (("object", answers.entities), ("image", answers.images)) if found
    ]
    figures = compute_figures(images, answers, tasks)
    tables = []
    for task, caption, rows_of in (
        ("object", "The model's answers to the questions (ObjectQA)", object_rows),
        ("image", "The model's lists of entities (ImageQA)", image_rows),
    ):
        if figures[task] is not None:
            header, rows = rows_of(figures[task])
            tables.append(Table(caption, header, tuple(map(tuple, rows))))
    return tables, figures["warnings"]


def _counts(images: Sequence[QRealImage]) -> list[tuple[str, str]]:
    """Name and value of the main figures."""
    entities = [entity for image in images for entity in image.entities]
    counts = {
        "Images": len(images),
        "Entities": len(entities),
        **{
            f"With a problem of {dimension}": sum(e.has_problem(dimension) for e in entities)
            for dimension in DIMENSIONS
        },
        "Portraits": sum(image.is_portrait for image in images),
        UNVERIFIED.capitalize(): count_unverified(images),
    }
    return [(name, str(count)) for name, count in counts.items()]


def _question_table(images: Sequence[QRealImage]) -> Table:
    entities = [entity for image in images for entity in image.entities]
    rows = []
    for key, asked in QUESTIONS.items():
        problems = sum(entity.answers[key] == asked.defect for entity in entities)
        rows.append(
            (
                f"{key}: {asked.text}",
                asked.dimension,
                answer_word(asked.defect),
                str(problems),
                f"{problems / len(entities):.3f}" if entities else NOTHING,
            )
        )
    header = ("Question", "about", "a problem is", "entities with it", "share")
    return Table("Questions", header, tuple(rows))


def _generator_table(images: Sequence[QRealImage]) -> list[Table]:
    """A row for each generator, if any is named; those of unknown origin last."""
    groups: dict[str | None, list[QRealImage]] = {}
    for image in images:
        groups.setdefault(image.generator, []).append(image)
    if set(groups) == {None}:
        return []
    rows = []
    for name in sorted(groups, key=lambda name: (name is None, name)):
        entities = [entity for image in groups[name] for entity in image.entities]
        qualities = [entity.quality for entity in entities if entity.quality is not None]
        rows.append(
            (
                "unknown" if name is None else name,
                str(len(groups[name])),
                str(len(entities)),
                *(
                    f"{sum(e.has_problem(d) for e in entities) / len(entities):.3f}"
                    if entities
                    else NOTHING
                    for d in DIMENSIONS
                ),
                f"{fmean(qualities):.3f}" if qualities else NOTHING,
            )
        )
    shares = (f"share with a problem of {dimension}" for dimension in DIMENSIONS)
    header = ("Generator", "images", "entities", *shares, "mean quality")
    return [Table("Generators", header, tuple(rows))]


def _entries(
    images: Iterable[QRealImage], answers: Predictions | None
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """What the template shows of each image, and images that cannot be read."""
    entries: list[dict[str, Any]] = []
    failures = []
    for image in images:
        try:
            pixels = decode_image(image.path, str(image.path))
        except ArtifactNetError as error:
            reason = str(error).removeprefix(f"{image.path}: ")
            failures.append(Failure(image.image, reason))
            continue
        height, width = pixels.shape[:2]
        entry = {
            "number": len(entries) + 1,
            "image": image,
            "picture": encode(pixels, {}).layers["image"],
            "width": width,
            "height": height,
            "mark": max(height, width) / 25,  # size of a number on the image, in its pixels
            "entities": [_entity(e, k, answers) for k, e in enumerate(image.entities, 1)],
            "lists": [] if answers is None else _lists(image, answers),
        }
        wrong = any(one["wrong"] for e in entry["entities"] for one in e["questions"])
        problems = [d for d in DIMENSIONS if image.problems(d)]
        entry["flags"] = " ".join([*problems, *(["wrong"] if wrong else [])])
        entry["words"] = " ".join([image.image, *(e.label for e in image.entities)]).lower()
        entries.append(entry)
    return entries, failures


def _entity(entity: QRealEntity, number: int, answers: Predictions | None) -> dict[str, Any]:
    questions = []
    for key, asked in QUESTIONS.items():
        truth = entity.answers[key]
        votes = (entity.votes or {}).get(key, ())
        found = None if answers is None else answers.entities.get((entity.id, key))
        questions.append(
            {
                "text": asked.text,
                "answer": answer_word(truth),
                "problem": truth == asked.defect,
                "votes": ", ".join(map(answer_word, votes)),
                "model": None
                if found is None
                else "unreadable"
                if found.answer is None
                else answer_word(found.answer),
                "score": None if found is None else found.score,
                "wrong": found is not None and found.answer != truth,
            }
        )
    return {
        "number": number,
        "label": entity.label,
        "box": _rectangle(entity.bbox),
        "corners": _corners(entity.bbox),
        "quality": entity.quality,
        "portrait": entity.parts is not None,
        "problem": any(map(entity.has_problem, DIMENSIONS)),
        "questions": questions,
        "descriptions": [_description(entity, dimension) for dimension in DIMENSIONS],
    }


def _description(entity: QRealEntity, dimension: Dimension) -> dict[str, Any]:
    """What is wrong in a dimension: by part of a portrait, or in one text."""
    parts = entity.parts if dimension == "plausibility" else None
    text = entity.description(dimension)
    texts = [(part, prose(said)) for part, said in (parts or {}).items()]
    if not texts and text is not None:
        texts = [("", prose(text))]
    return {"dimension": dimension, "problem": entity.has_problem(dimension), "texts": texts}


def _lists(image: QRealImage, answers: Predictions) -> list[dict[str, Any]]:
    """The entities that the model lists in each dimension, paired as the benchmark does."""
    lists = []
    for dimension in DIMENSIONS:
        found = answers.images.get((image.image, dimension))
        if found is None:
            continue
        truth = image.problems(dimension)
        pairs = pair_boxes([one.bbox for one in found.entities], [e.bbox for e in truth]).pairs
        partner = {pair.predicted: pair for pair in pairs if pair.iou > 0}
        rows = []
        for k, one in enumerate(found.entities):
            pair = partner.get(k)
            rows.append(
                {
                    "mark": f"{dimension[0].upper()}{k + 1}",
                    "label": one.label,
                    "description": prose(one.description),
                    "box": _rectangle(one.bbox),
                    "corners": _corners(one.bbox),
                    "truth": None if pair is None else image.entities.index(truth[pair.truth]) + 1,
                    "iou": None if pair is None else pair.iou,
                }
            )
        lists.append({"dimension": dimension, "rows": rows, "note": _note(found)})
    return lists


def _note(found: EntityList) -> str:
    """What the rows do not say of an answer."""
    notes = []
    if not found.readable:
        notes.append("The answer cannot be read.")
    elif not found.entities:
        notes.append("None, says the model.")
    if found.dropped:
        notes.append(f"{found.dropped} boxes cannot be used.")
    if found.cut_off:
        notes.append("The answer was cut off.")
    return " ".join(notes)


def _rectangle(box: Corners) -> dict[str, float]:
    x1, y1, x2, y2 = box
    return {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}


def _corners(box: Corners) -> str:
    return ", ".join(f"{corner:g}" for corner in box)
