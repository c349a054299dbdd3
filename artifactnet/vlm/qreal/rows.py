"""What is learned of Q-Real's training images: questions and true answers of one task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from artifactnet.config import Config
from artifactnet.data.crops import crop_entity, crop_size
from artifactnet.data.images import decode_image, shown_size
from artifactnet.data.qreal import (
    DIMENSIONS,
    QUESTIONS,
    Dimension,
    QRealEntity,
    QRealImage,
    answer_word,
    check_splits,
    count_unverified,
    read_qreal,
)
from artifactnet.data.text import brief
from artifactnet.types import ArtifactNetError, UInt8Array
from artifactnet.vlm.coordinates import Size, rule_of
from artifactnet.vlm.image_chat import ImageChat, question_messages
from artifactnet.vlm.qreal.answers import write_entities
from artifactnet.vlm.qreal.prompts import (
    Context,
    description_question,
    detection_question,
    entity_question,
    filter_question,
    list_question,
)

# mllm.task
OBJECT = "qreal_object"
STAGES = ("detect", "filter", "describe")  # of the chain that answers as qreal_image does
STAGE_TASKS = tuple(f"qreal_{stage}" for stage in STAGES)

_UNVERIFIED = "trained on annotations that no person has verified"


@dataclass(frozen=True, slots=True)
class QRealRow:
    """A question about an image and its true answer.

    Attributes:
        image: that is asked about.
        entity: whose crop is shown; None: the whole image is.
        question: text.
        answer: what the model should write.
    """

    image: QRealImage
    entity: QRealEntity | None
    question: str
    answer: str


@dataclass(slots=True)
class _Split:
    """Images of a split, as `artifactnet.training.run.Run.open_folder` counts them."""

    records: list[QRealImage]


class QRealData:
    """The images of a run by split, and what is said of them.

    Attributes:
        splits: by name; those without an image are left out.
        summary: counts, and ``warnings``.
        notices: what must be known before trusting what was trained.

    Raises:
        ArtifactNetError: the file cannot be used, or has no image to train on.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        assert config.data.root is not None
        images = read_qreal(config.data.root)
        divided = check_splits(images)
        names = ("train", "val", "test")
        found = {name: [one for one in images if one.split == name] for name in names}
        self.splits: Any = {name: _Split(kept) for name, kept in found.items() if kept}
        if not found["train"]:
            hint = "" if divided else "; `artifactnet qreal split` divides them"
            raise ArtifactNetError(
                f"data.root={config.data.root}: no image is in the split train{hint}"
            )
        unverified = count_unverified(images)
        self.summary: dict[str, Any] = {
            "images": {name: len(kept) for name, kept in found.items()},
            "entities": {name: sum(len(i.entities) for i in kept) for name, kept in found.items()},
            "unverified": unverified,
            "warnings": [],
        }
        self.notices = [_UNVERIFIED] if unverified else []
        if unverified:
            self.summary["warnings"].append(
                f"{unverified} of {len(images)} images were annotated by models alone: no person "
                "has verified them"
            )

    def rows(self, split: str, chat: ImageChat) -> list[QRealRow]:
        """Rows of a split by ``mllm.task``; none where the split is missing.

        Raises:
            ArtifactNetError: a text holds a control word of the language model, an answer is longer
                than ``mllm.max_new_tokens``, or the model cannot take an image or crop of this
                shape; the message names the line of the file. Or nothing is there to learn.
        """
        if split not in self.splits:
            return []
        about = _ROWS[self._config.mllm.task]
        rows = []
        for image in self.splits[split].records:
            height, width, _ = shown_size(image.path, f"{image.where}: {image.path}")
            size = (width, height)
            try:
                for row in about(self._config, image, size, chat):
                    self._check(row, size, chat)
                    rows.append(row)
            except ArtifactNetError as error:
                raise ArtifactNetError(f"{image.where}: {image.image}: {error}") from None
        if split == "train" and not rows:
            raise ArtifactNetError(
                f"data.root={self._config.data.root}: no image of the split train has anything to "
                f"teach mllm.task={self._config.mllm.task}"
            )
        return rows

    def _check(self, row: QRealRow, size: Size, chat: ImageChat) -> None:
        chat.check_text(row.question, "a label")
        chat.check_text(row.answer, "a label or description")
        limit, length = self._config.mllm.max_new_tokens, len(chat.tokenize(row.answer)) + 1
        if length > limit:
            raise ArtifactNetError(
                f"its answer has {length} tokens, more than mllm.max_new_tokens={limit}: raise that"
            )
        if row.entity is not None:
            try:
                chat.input_size(crop_size(row.entity.bbox, size))
            except ArtifactNetError as error:
                raise ArtifactNetError(f"entity {brief(row.entity.id)}: {error}") from None


class QRealExamples:
    """Rows as examples of `artifactnet.vlm.sft.learn_answers`."""

    def __init__(self, rows: Sequence[QRealRow]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def example(self, number: int) -> tuple[UInt8Array, list[dict[str, Any]], str]:
        """Pixels, chat messages and answer of a row."""
        row = self.rows[number]
        pixels = decode_image(row.image.path, str(row.image.path))
        if row.entity is not None:
            pixels = crop_entity(pixels, row.entity.bbox)
        return pixels, question_messages(row.question), row.answer


def _object_rows(
    config: Config, image: QRealImage, size: Size, chat: ImageChat
) -> Iterator[QRealRow]:
    """Six questions about each entity."""
    context: Context = "image" if config.mllm.context == "image" else "crop"
    space = chat.input_size(size) if context == "image" else size
    for entity in image.entities:
        shown = entity if context == "crop" else None
        for key in QUESTIONS:
            question = entity_question(key, entity, context, size, space, tuned=True)
            yield QRealRow(image, shown, question, answer_word(entity.answers[key]))


def _image_rows(
    config: Config, image: QRealImage, size: Size, chat: ImageChat
) -> Iterator[QRealRow]:
    """The entities with a problem in each dimension; the word for none where there is none."""
    pixels, space = rule_of(chat.family) == "pixels", chat.input_size(size)
    dimension: Dimension
    for dimension in DIMENSIONS:
        problems = image.problems(dimension)
        if problems or config.mllm.negatives:
            answer = write_entities(problems, dimension, size, space)
            yield QRealRow(image, None, list_question(dimension, pixels), answer)


def _detect_rows(
    config: Config, image: QRealImage, size: Size, chat: ImageChat
) -> Iterator[QRealRow]:
    """All entities; the word for none where there is none."""
    if image.entities or config.mllm.negatives:
        answer = write_entities(image.entities, None, size, chat.input_size(size))
        yield QRealRow(image, None, detection_question(rule_of(chat.family) == "pixels"), answer)


def _filter_rows(
    config: Config, image: QRealImage, size: Size, chat: ImageChat
) -> Iterator[QRealRow]:
    """Whether each entity has a problem in each dimension."""
    for entity in image.entities:
        for dimension in DIMENSIONS:
            question = filter_question(entity.label, dimension)
            yield QRealRow(image, entity, question, answer_word(entity.has_problem(dimension)))


def _describe_rows(
    config: Config, image: QRealImage, size: Size, chat: ImageChat
) -> Iterator[QRealRow]:
    """What is wrong with each entity in each dimension in which it has a problem."""
    for dimension in DIMENSIONS:
        for entity in image.problems(dimension):
            text = entity.description(dimension)
            assert text is not None  # the file was read without allowing for missing ones
            yield QRealRow(image, entity, description_question(entity.label, dimension), text)


_ROWS = {
    OBJECT: _object_rows,
    "qreal_image": _image_rows,
    **dict(zip(STAGE_TASKS, (_detect_rows, _filter_rows, _describe_rows), strict=True)),
}
