"""Q-Real's annotations (Q-Real, Sec. 3): entities of generated images, what is wrong with each.

Every entity has a box, the answers to six questions, and a description of each dimension in which
it has a problem. A file holds one image a line::

    {"image": "a.png", "uid": "17", "generator": "flux", "prompt": "...", "split": "train",
     "entities": [{"id": "17-0", "label": "violin", "bbox": [x1, y1, x2, y2], "quality": 0.41,
       "answers": {"realism_1": "No", ...}, "realism": "too smooth", "plausibility": null,
       "parts": {"hands": "..."}, "votes": {"realism_1": ["No", "No", "Yes"], ...}}]}

``image``, ``uid`` and ``entities`` with ``label``, ``bbox`` and all six ``answers`` are required.
``"verified": false`` marks what no person has looked at; every table made from it says so.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from artifactnet.data.folder_names import SPLITS, split_of
from artifactnet.data.images import shown_size
from artifactnet.data.regions import Corners, clip_region, parse_corners
from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.files import write_text
from artifactnet.types import ArtifactNetError, Region

logger = logging.getLogger(__name__)

Dimension = Literal["realism", "plausibility"]


class QuestionText(NamedTuple):
    """One of the six questions about an entity (Q-Real, Sec. 3.2)."""

    dimension: Dimension
    text: str
    defect: bool  # the answer that means a problem: True is Yes


DIMENSIONS: tuple[Dimension, ...] = ("realism", "plausibility")
# The only place that knows what an answer means: a Yes is good news about realism, and bad news
# about plausibility. The wording is the paper's.
QUESTIONS: Mapping[str, QuestionText] = MappingProxyType(
    {
        "realism_1": QuestionText(
            "realism", "Does the picture look like it was taken in the real world?", False
        ),
        "realism_2": QuestionText(
            "realism",
            "Do the color, material texture, and lighting in the picture resemble those in the "
            "real world?",
            False,
        ),
        "plausibility_1": QuestionText(
            "plausibility",
            "Does the facial or limb structure of the characters/animals/plants in the generated "
            "image appear abnormal or out of the ordinary?",
            True,
        ),
        "plausibility_2": QuestionText(
            "plausibility",
            "Are there any elements in the image that appear inconsistent with reality or "
            "distorted in an unnatural way?",
            True,
        ),
        "plausibility_3": QuestionText(
            "plausibility",
            "Does the material or texture of the objects in the image not match the real world?",
            True,
        ),
        "plausibility_4": QuestionText(
            "plausibility",
            "Does the text within the image contain errors or garbled characters?",
            True,
        ),
    }
)
# of a person, in the order in which their texts make one description
PARTS = ("head/face", "hands", "limbs", "torso", "feet", "clothing", "interaction")

# ends the message about a problem without a description
WITHOUT = "where a command has --allow-missing, that reads the file without"

_WORDS = {"Yes": True, "No": False}
_IMAGE_KEYS = ("image", "uid", "entities", "generator", "prompt", "split", "verified")
_ENTITY_KEYS = ("label", "bbox", "answers", "id", "quality", *DIMENSIONS, "parts", "votes")
_REQUIRED = 3  # of both, the first ones


@dataclass(frozen=True, slots=True)
class QRealEntity:
    """A visible thing of an image.

    Attributes:
        id: unique within a file.
        label: what it is.
        bbox: (x1, y1, x2, y2) in pixels of the image as shown, half-open.
        answers: to each of `QUESTIONS`; True is Yes.
        realism: what does not look real, or None.
        plausibility: what is malformed or impossible, or None.
        parts: descriptions of plausibility by `PARTS`, which are its text when joined; None unless
            it is a portrait, empty for one without a problem.
        votes: answers of each annotator by question, or None.
        quality: in [0, 1], 1 is best, or None.
    """

    id: str
    label: str
    bbox: Corners
    answers: Mapping[str, bool]
    realism: str | None = None
    plausibility: str | None = None
    parts: Mapping[str, str] | None = None
    votes: Mapping[str, tuple[bool, ...]] | None = None
    quality: float | None = None

    def has_problem(self, dimension: Dimension) -> bool:
        """Whether any answer of a dimension means a problem (our reading)."""
        return has_problem(self.answers, dimension)

    def description(self, dimension: Dimension) -> str | None:
        """What is wrong in a dimension."""
        return self.realism if dimension == "realism" else self.plausibility


@dataclass(frozen=True, slots=True)
class QRealImage:
    """A generated image.

    Attributes:
        image: path of the file as it is written in the file of annotations, relative to
            ``folder`` or absolute; predictions name the image so, too.
        uid: of the prompt; images that share it are in one split.
        entities: in the order of the file.
        generator: name of the model that made it, or None.
        prompt: that it was made from, or None.
        split: ``train``, ``val``, ``test``, or None: not in any yet.
        verified: whether people have looked at the annotation.
        folder: of the file of annotations.
        where: ``FILE:LINE`` for error messages; ignored in comparisons, as ``folder`` is.
    """

    image: str
    uid: str
    entities: tuple[QRealEntity, ...]
    generator: str | None = None
    prompt: str | None = None
    split: str | None = None
    verified: bool = True
    folder: Path = field(default=Path(), compare=False)
    where: str = field(default="", compare=False)

    @property
    def path(self) -> Path:
        """Where the image file is."""
        return self.folder / self.image

    @property
    def is_portrait(self) -> bool:
        """Whether plausibility was described by parts of a person (Q-Real, Sec. 3.3)."""
        return any(entity.parts is not None for entity in self.entities)

    def problems(self, dimension: Dimension) -> tuple[QRealEntity, ...]:
        """The entities with a problem in a dimension."""
        return tuple(entity for entity in self.entities if entity.has_problem(dimension))


def questions_of(dimension: Dimension) -> tuple[str, ...]:
    """Keys of the questions about a dimension, in their order."""
    return tuple(key for key, asked in QUESTIONS.items() if asked.dimension == dimension)


def has_problem(answers: Mapping[str, bool], dimension: Dimension) -> bool:
    """Whether any answer (True is Yes) to the questions of a dimension means a problem."""
    return any(answers[key] == QUESTIONS[key].defect for key in questions_of(dimension))


def answer_word(answer: bool) -> str:
    """``Yes`` or ``No``."""
    return "Yes" if answer else "No"


def join_parts(parts: Mapping[str, str]) -> str:
    """One description of plausibility from those by part, in the order of `PARTS`."""
    return " ".join(parts[name] for name in PARTS if name in parts)


def read_qreal(
    path: str | Path, allow_missing: bool = False, images: bool = True
) -> list[QRealImage]:
    """Read a file of annotations; empty lines are skipped.

    Args:
        path: JSON lines.
        allow_missing: a problem without its description is a warning, which is logged, and not an
            error.
        images: open each image file to check that boxes lie within it; nothing but its header is
            read.

    Raises:
        ArtifactNetError: the file cannot be read or has no line; `parse_qreal_line` refuses a line;
            an image or the id of an entity occurs twice; a uid is in two splits; an image cannot
            be read, or a box reaches out of it.
    """
    path = Path(path)
    found: list[QRealImage] = []
    names: dict[str, str] = {}
    ids: dict[str, str] = {}
    splits: dict[str, QRealImage] = {}
    for number, text in enumerate(read_text(path).split("\n"), 1):
        if not text.strip():
            continue
        where = f"{path}:{number}"
        image = parse_qreal_line(text, path.parent, where, allow_missing)
        first = names.setdefault(os.path.abspath(image.path), where)
        if first != where:
            raise ArtifactNetError(
                f"{where}: image {brief(image.image)} is in {first} already; put its entities "
                "into one line"
            )
        for entity in image.entities:
            first = ids.setdefault(entity.id, where)
            if first != where:
                raise ArtifactNetError(
                    f"{where}: entity {brief(entity.id)}: its id is in {first} already; give each "
                    "its own"
                )
        other = splits.setdefault(image.uid, image)
        if other.split != image.split:
            raise ArtifactNetError(
                f"{where}: uid {brief(image.uid)} is in split {image.split}, but in "
                f"{other.split} in {other.where}; all images of one prompt belong into one split"
            )
        found.append(_within_image(image) if images else image)
    if not found:
        raise ArtifactNetError(f"{path}: has no line")
    return found


def write_qreal(
    path: str | Path, images: Iterable[QRealImage], allow_missing: bool = False
) -> None:
    """Atomically write a file of annotations; relative paths are kept relative to its folder.

    Args:
        path: the file.
        images: its lines.
        allow_missing: see `read_qreal`.

    Raises:
        ArtifactNetError: a line that `parse_qreal_line` refuses; the message names its image.
    """
    path = Path(path)
    lines = []
    for image in images:
        line = json.dumps(_row(image, path.parent), ensure_ascii=False)
        parse_qreal_line(line, path.parent, image.image, allow_missing)
        lines.append(line + "\n")
    write_text(path, "".join(lines))


def parse_qreal_line(
    text: str, folder: Path, where: str, allow_missing: bool = False
) -> QRealImage:
    """Check one line; null is absent. Whether boxes lie in their image is left to `read_qreal`.

    Args:
        text: a JSON object.
        folder: of its file.
        where: names the line in error messages, which also name the entity.
        allow_missing: see `read_qreal`.

    Raises:
        ArtifactNetError: it is no JSON object; a key is unknown, repeated, missing or of another
            type; an answer is neither Yes nor No; an entity's id occurs twice; a description is
            there without its problem or missing, or not that of its parts; votes have another
            majority than the answer.
    """
    row = _object(parse_json(text, where), _IMAGE_KEYS, where)
    value = row["entities"]
    if not isinstance(value, list):
        raise ArtifactNetError(f"{where}: 'entities' must be a list, not {brief(value)}")
    name = _text(row, "image", where)
    entities = [
        _entity(one, f"{name}#{number}", where, number, allow_missing)
        for number, one in enumerate(value)
    ]
    ids = [entity.id for entity in entities]
    twice = next((one for one in ids if ids.count(one) > 1), None)
    if twice is not None:
        raise ArtifactNetError(f"{where}: entity {brief(twice)}: two entities have this id")
    split = row.get("split")
    if split is not None:
        split = split_of(split) if isinstance(split, str) else None
        if split is None:
            raise ArtifactNetError(
                f"{where}: 'split' must be one of {', '.join(SPLITS)}, not {brief(row['split'])}"
            )
    verified = row.get("verified", True)
    if not isinstance(verified, bool):
        raise ArtifactNetError(f"{where}: 'verified' must be true or false, not {brief(verified)}")
    return QRealImage(
        image=name,
        uid=_text(row, "uid", where),
        entities=tuple(entities),
        generator=_text(row, "generator", where) if "generator" in row else None,
        prompt=_text(row, "prompt", where) if "prompt" in row else None,
        split=split,
        verified=verified,
        folder=folder,
        where=where,
    )


def check_splits(images: Sequence[QRealImage]) -> bool:
    """Whether images have been divided into splits: all of them, or none.

    Raises:
        ArtifactNetError: some have a split and some have none; the message names one of each.
    """
    found = {image.split is None: image for image in images}
    if len(found) == 2:
        raise ArtifactNetError(
            f"{found[True].where}: has no 'split', but {found[False].where} is in "
            f"{found[False].split}: give every line one, or none of them and use `artifactnet "
            "qreal split`"
        )
    return False in found


def count_unverified(images: Iterable[QRealImage]) -> int:
    """How many images no person has looked at."""
    return sum(not image.verified for image in images)


def _entity(
    value: Any, default_id: str, where: str, number: int, allow_missing: bool
) -> QRealEntity:
    row = _object(value, _ENTITY_KEYS, f"{where}: entities[{number}]")
    name = default_id
    if "id" in row:
        name = _text(row, "id", f"{where}: entities[{number}]")
    where = f"{where}: entity {brief(name)}"
    answers = {
        key: _answer(word, f"{where}: answers[{key!r}]")
        for key, word in _by_question(row["answers"], f"{where}: 'answers'", all_of_them=True)
    }
    parts = None if "parts" not in row else _parts(row["parts"], f"{where}: 'parts'")
    texts: dict[str, str] = {key: _text(row, key, where) for key in DIMENSIONS if key in row}
    if parts is not None:
        joined = join_parts(parts)
        if texts.get("plausibility", joined) != joined:
            raise ArtifactNetError(
                f"{where}: 'plausibility' is not what its 'parts' say, joined in their order: "
                "correct one of them, or leave out 'plausibility'"
            )
        if joined:
            texts["plausibility"] = joined
    _check_texts(answers, texts, where, allow_missing)
    return QRealEntity(
        id=name,
        label=_text(row, "label", where),
        bbox=parse_corners(row["bbox"], f"{where}: 'bbox'"),
        answers=answers,
        realism=texts.get("realism"),
        plausibility=texts.get("plausibility"),
        parts=parts,
        votes=None if "votes" not in row else _votes(row["votes"], answers, f"{where}: 'votes'"),
        quality=_quality(row, where),
    )


def _check_texts(
    answers: Mapping[str, bool], texts: Mapping[str, str], where: str, allow_missing: bool
) -> None:
    for dimension in DIMENSIONS:
        problem = has_problem(answers, dimension)
        if dimension in texts and not problem:
            raise ArtifactNetError(
                f"{where}: {dimension!r} describes a problem, but no answer about {dimension} "
                "means one; correct the answers or remove the text"
            )
        if problem and dimension not in texts:
            missing = f"{where}: it has a problem of {dimension}, which {dimension!r} must describe"
            if not allow_missing:
                raise ArtifactNetError(f"{missing}; {WITHOUT}")
            logger.warning("%s", missing)


def _answer(value: Any, what: str) -> bool:
    if not isinstance(value, str) or value not in _WORDS:
        raise ArtifactNetError(f"{what} must be Yes or No, not {brief(value)}")
    return _WORDS[value]


def _by_question(value: Any, what: str, all_of_them: bool) -> Iterable[tuple[str, Any]]:
    """Values by question in the order of `QUESTIONS`."""
    if not isinstance(value, dict):
        raise ArtifactNetError(f"{what} must be an object, not {brief(value)}")
    unknown = next((key for key in value if key not in QUESTIONS), None)
    if unknown is not None:
        raise ArtifactNetError(
            f"{what}: unknown question {brief(unknown)}; known: {', '.join(QUESTIONS)}"
        )
    missing = next((key for key in QUESTIONS if key not in value), None)
    if missing is not None and all_of_them:
        raise ArtifactNetError(f"{what}: the question {missing!r} has no answer")
    return [(key, value[key]) for key in QUESTIONS if key in value]


def _votes(value: Any, answers: Mapping[str, bool], what: str) -> dict[str, tuple[bool, ...]]:
    votes = {}
    for key, words in _by_question(value, what, all_of_them=False):
        if not isinstance(words, list) or not words:
            raise ArtifactNetError(f"{what}: {key!r} must be a list of Yes and No")
        given = tuple(_answer(word, f"{what}: {key!r}") for word in words)
        agree = given.count(answers[key])
        if 2 * agree <= len(given):
            raise ArtifactNetError(
                f"{what}: {key!r}: the answer {answer_word(answers[key])} has {agree} of "
                f"{len(given)} votes, which is no majority"
            )
        votes[key] = given
    return votes


def _parts(value: Any, what: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ArtifactNetError(f"{what} must be an object, not {brief(value)}")
    unknown = next((key for key in value if key not in PARTS), None)
    if unknown is not None:
        raise ArtifactNetError(f"{what}: unknown part {brief(unknown)}; known: {', '.join(PARTS)}")
    return {name: _text(value, name, what) for name in PARTS if value.get(name) is not None}


def _quality(row: Mapping[str, Any], where: str) -> float | None:
    value = row.get("quality")
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ArtifactNetError(f"{where}: 'quality' must be from 0 to 1, not {brief(value)}")
    return float(value)


def _object(value: Any, keys: tuple[str, ...], where: str) -> dict[str, Any]:
    """A JSON object without null, of which the first `_REQUIRED` of the keys are there."""
    if not isinstance(value, dict):
        raise ArtifactNetError(f"{where}: must be a JSON object, not {brief(value)}")
    unknown = next((key for key in value if key not in keys), None)
    if unknown is not None:
        raise ArtifactNetError(f"{where}: unknown key {brief(unknown)}; known: {', '.join(keys)}")
    row = {key: one for key, one in value.items() if one is not None}
    missing = next((key for key in keys[:_REQUIRED] if key not in row), None)
    if missing is not None:
        raise ArtifactNetError(f"{where}: {missing!r} is missing")
    return row


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise ArtifactNetError(
            f"{where}: {key!r} must be text that is not blank, not {brief(value)}"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half a character, which no tokenizer takes
        raise ArtifactNetError(f"{where}: {key!r} is no Unicode text ({error.reason})") from None
    return value


def _within_image(image: QRealImage) -> QRealImage:
    """The image with boxes that lie within it, after clipping what sticks out by rounding."""
    height, width, _ = shown_size(image.path, f"{image.where}: {image.path}")
    entities = []
    for entity in image.entities:
        what = f"{image.where}: entity {brief(entity.id)}"
        box = clip_region(Region(entity.bbox, ""), (height, width), what).bbox
        entities.append(entity if box == entity.bbox else replace(entity, bbox=box))
    return replace(image, entities=tuple(entities))


def _row(image: QRealImage, folder: Path) -> dict[str, Any]:
    name = image.image
    if not os.path.isabs(name) and os.path.realpath(image.folder) != os.path.realpath(folder):
        # of the folders alone: an image may be a link to a file of another name
        place = os.path.join(os.path.realpath(image.path.parent), image.path.name)
        name = Path(os.path.relpath(place, os.path.realpath(folder))).as_posix()
    row = {
        "image": name,
        "uid": image.uid,
        "generator": image.generator,
        "prompt": image.prompt,
        "split": image.split,
        "verified": image.verified,
        "entities": [_entity_row(entity) for entity in image.entities],
    }
    return {key: value for key, value in row.items() if value is not None}


def _entity_row(entity: QRealEntity) -> dict[str, Any]:
    row = {
        "id": entity.id,
        "label": entity.label,
        "bbox": list(entity.bbox),
        "quality": entity.quality,
        "answers": {key: answer_word(entity.answers[key]) for key in QUESTIONS},
        "realism": entity.realism,
        "plausibility": entity.plausibility,
        "parts": None if entity.parts is None else dict(entity.parts),
        "votes": None
        if entity.votes is None
        else {key: list(map(answer_word, votes)) for key, votes in entity.votes.items()},
    }
    optional = ("quality", "parts", "votes")
    return {key: value for key, value in row.items() if value is not None or key not in optional}
