"""Files of predictions for Q-Real: JSON lines of both tasks, in any order.

About an entity: ``{"entity", "question", "answer" | "score"}``, where the answer is a text and the
score grows with a surer Yes; a score alone means Yes above 0.5. About an image: ``{"image",
"dimension", "answer", "input_size"?}`` with the text of a model, or ``{"image", "dimension",
"boxes"}`` with ``[{"bbox", "label"?, "description"?}, ...]`` in pixels of the image. A text that
reached the limit of its length has ``"cut_off": true``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifactnet.data.images import shown_size
from artifactnet.data.qreal import DIMENSIONS, QUESTIONS, QRealImage
from artifactnet.data.regions import parse_corners
from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.coordinates import THOUSANDTHS, Unit, written_input_size
from artifactnet.vlm.qreal.answers import EntityList, NamedEntity, read_entities, read_yes_no

# "path" names a line of an unfinished file of `artifactnet.inference.answers`
_ENTITY_KEYS = {"path", "entity", "question", "answer", "score", "cut_off"}
_IMAGE_KEYS = {"path", "image", "dimension", "answer", "input_size", "boxes", "cut_off"}
_CERTAIN = 0.5  # of a score without an answer: Yes above it


@dataclass(frozen=True, slots=True)
class EntityAnswer:
    """What was answered about an entity."""

    answer: bool | None  # True is Yes; None is neither
    score: float | None
    cut_off: bool = False  # at the limit of its length


@dataclass(slots=True)
class Predictions:
    """Answers to both tasks.

    Attributes:
        entities: by id of the entity and key of the question.
        images: by name of the image and dimension.
    """

    entities: dict[tuple[str, str], EntityAnswer] = field(default_factory=dict)
    images: dict[tuple[str, str], EntityList] = field(default_factory=dict)


def read_predictions(
    paths: Sequence[str | Path], images: Sequence[QRealImage], unit: Unit | None = None
) -> Predictions:
    """Read files of predictions; empty lines are skipped.

    Args:
        paths: of the files.
        images: all of the truth; a prediction about anything else is an error.
        unit: what the numbers of a text mean whose line has no ``input_size``: pixels of the
            ``image``, or ``thousandths`` of it.

    Raises:
        ArtifactNetError: a file cannot be read; a line has an unknown key or lacks one, names what
            the truth does not have, or answers a question for the second time; a text has boxes in
            an unknown unit. The message names file and line.
    """
    by_name = {image.image: image for image in images}
    ids = {entity.id for image in images for entity in image.entities}
    found = Predictions()
    places: dict[tuple[str, str], str] = {}
    for path in paths:
        for number, text in enumerate(read_text(Path(path)).split("\n"), 1):
            if not text.strip():
                continue
            where = f"{path}:{number}"
            row = parse_json(text, where)
            if not isinstance(row, dict):
                raise ArtifactNetError(f"{where}: must be a JSON object, not {brief(row)}")
            row = {key: value for key, value in row.items() if value is not None}
            if "entity" in row:
                key = _names(row, ("entity", "question"), (ids, QUESTIONS), _ENTITY_KEYS, where)
                found.entities[key] = _entity_answer(row, where)
            else:
                key = _names(row, ("image", "dimension"), (by_name, DIMENSIONS), _IMAGE_KEYS, where)
                found.images[key] = _image_answer(row, by_name[key[0]], unit, where)
            first = places.setdefault(key, where)
            if first != where:
                raise ArtifactNetError(
                    f"{where}: {brief(key[0])} {key[1]} is answered in {first} already; keep one"
                )
    return found


def _names(
    row: Mapping[str, Any],
    keys: tuple[str, str],
    known: tuple[Any, Any],
    allowed: set[str],
    where: str,
) -> tuple[str, str]:
    """What a line is about."""
    unknown = next((key for key in row if key not in allowed), None)
    if unknown is not None:
        raise ArtifactNetError(f"{where}: unknown key {brief(unknown)} beside {keys[0]!r}")
    for key, names in zip(keys, known, strict=True):
        value = row.get(key)
        if not isinstance(value, str) or value not in names:
            some = f"; known: {', '.join(names)}" if len(names) <= len(QUESTIONS) else ""
            raise ArtifactNetError(f"{where}: the truth has no {key} {brief(value)}{some}")
    return row[keys[0]], row[keys[1]]


def _entity_answer(row: Mapping[str, Any], where: str) -> EntityAnswer:
    answer, score = row.get("answer"), row.get("score")
    if answer is None and score is None:
        raise ArtifactNetError(f"{where}: neither 'answer' nor 'score'")
    if answer is not None and not isinstance(answer, str):
        raise ArtifactNetError(f"{where}: 'answer' must be text, not {brief(answer)}")
    if score is not None and not (
        isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    ):
        raise ArtifactNetError(f"{where}: 'score' must be a finite number, not {brief(score)}")
    if answer is not None:
        said, score = read_yes_no(answer), None if score is None else float(score)
        return EntityAnswer(said, score, _cut_off(row, where))
    assert score is not None
    return EntityAnswer(score > _CERTAIN, float(score))


def _image_answer(
    row: Mapping[str, Any], image: QRealImage, unit: Unit | None, where: str
) -> EntityList:
    if ("answer" in row) == ("boxes" in row):
        raise ArtifactNetError(f"{where}: needs one of 'answer' and 'boxes'")
    if "boxes" in row:
        return EntityList(_boxes(row["boxes"], where))
    answer = row["answer"]
    if not isinstance(answer, str):
        raise ArtifactNetError(f"{where}: 'answer' must be text, not {brief(answer)}")
    size = space = THOUSANDTHS  # where there is no box, the image is not opened
    if "[" in answer or "<" in answer or "{" in answer:
        height, width, _ = shown_size(image.path, f"{image.where}: {image.path}")
        size = (width, height)
        space = written_input_size(row, size, unit, where)
    return read_entities(answer, size, space)._replace(cut_off=_cut_off(row, where))


def _cut_off(row: Mapping[str, Any], where: str) -> bool:
    value = row.get("cut_off", False)
    if not isinstance(value, bool):
        raise ArtifactNetError(f"{where}: 'cut_off' must be true or false, not {brief(value)}")
    return value


def _boxes(value: Any, where: str) -> tuple[NamedEntity, ...]:
    if not isinstance(value, list):
        raise ArtifactNetError(f"{where}: 'boxes' must be a list, not {brief(value)}")
    found = []
    for number, row in enumerate(value):
        name = f"{where}: boxes[{number}]"
        if not isinstance(row, dict) or not {"bbox"} <= set(row) <= {
            *("bbox", "label", "description")
        }:
            raise ArtifactNetError(
                f"{name} must be an object of 'bbox', 'label' and 'description', not {brief(row)}"
            )
        texts = [row.get(key) or "" for key in ("label", "description")]
        if not all(isinstance(text, str) for text in texts):
            raise ArtifactNetError(f"{name}: 'label' and 'description' must be text")
        found.append(NamedEntity(parse_corners(row["bbox"], f"{name}: 'bbox'"), *texts))
    return tuple(found)
