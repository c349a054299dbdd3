"""Both tasks of Q-Real, asked of a model: local or behind an endpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from artifactnet.data.crops import crop_entity
from artifactnet.data.images import decode_image
from artifactnet.data.qreal import DIMENSIONS, QUESTIONS, Dimension, QRealImage, read_qreal
from artifactnet.data.text import brief
from artifactnet.llm.client import Chat
from artifactnet.metrics.entity_boxes import Area
from artifactnet.types import UInt8Array
from artifactnet.vlm.coordinates import Size
from artifactnet.vlm.qreal.figures import (
    SIMILARITY,
    chosen_images,
    compute_figures,
    endpoint_judge,
)
from artifactnet.vlm.qreal.pages import write_results
from artifactnet.vlm.qreal.predictions import read_predictions
from artifactnet.vlm.qreal.prompts import Context, entity_question, list_question
from artifactnet.vlm.question_log import LoggedQuestion, answer_questions
from artifactnet.vlm.questions import Answerer, ImageQuestion

TASKS = ("object", "image")
ANSWERS = {"object": "object.jsonl", "image": "image.jsonl"}  # a file of each task


def run_benchmark(
    truth: str | Path,
    answerer: Answerer,
    out: str | Path,
    *,
    tasks: Sequence[str] = TASKS,
    split: str | None = None,
    context: Context | None = None,
    tuned: bool | None = None,
    area: Area = "exact",
    judge: Chat | None = None,
    batch_size: int | None = None,
    allow_missing: bool = False,
    report: Callable[[int], None] | None = None,
    replace: bool = False,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Ask a model all questions; write ``object.jsonl``, ``image.jsonl`` and ``results.json``, .md.

    Called again after a kill, it asks what is left. `score.score_qreal` finds the same figures in
    the files of answers.

    Args:
        truth: file of annotations, see `artifactnet.data.qreal`.
        answerer: the model.
        out: folder of the files.
        tasks: of `TASKS`.
        split: see `figures.chosen_images`.
        context: see `prompts.entity_question`; None: as the model was taught, or else ``crop``.
        tuned: likewise; None: whether it was taught.
        area: see `artifactnet.metrics.entity_boxes.detection_area`.
        judge: model that compares descriptions; None: there is no LLM-Score.
        batch_size: see `answer_questions`.
        allow_missing: see `artifactnet.data.qreal.read_qreal`.
        report: see `answer_questions`.
        replace: answers of another model or of other data in the folder are replaced, and not
            refused.
        warnings: more of them for the results.

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: the truth cannot be used, a label holds a control word of the model, the
            folder has answers of another model, or no question can be answered.
    """
    out = Path(out)
    images, split = chosen_images(read_qreal(truth, allow_missing), split)
    taught = answerer.taught_context
    warnings = [*warnings]
    if "object" in tasks and taught is not None:
        warnings += _otherwise(taught, context, tuned)
    context = context or taught or "crop"
    tuned = taught is not None if tuned is None else tuned
    if "object" in tasks and context == "image":
        _check_labels(images, answerer)
    settings = {
        "split": split,
        "annotations": hash_values(
            [[i.image, [[e.id, e.label, e.bbox] for e in i.entities]] for i in images]
        ),
        "prompts": hash_values([*QUESTIONS.values(), *_lists(answerer), context, tuned]),
    }
    problems, files = [], []
    for task in (task for task in TASKS if task in tasks):
        files.append(out / ANSWERS[task])
        questions = _questions(task, images, answerer, context, tuned)
        problems += answer_questions(
            files[-1], questions, answerer, settings, batch_size, report, replace
        )
    predictions = read_predictions(files, images)
    asks = None if judge is None else endpoint_judge(judge, out / SIMILARITY)
    figures = compute_figures(images, predictions, tasks, area, asks)
    if problems:
        figures["warnings"].append(f"{len(problems)} questions have no answer, e.g. {problems[0]}")
    figures["warnings"] += [*answerer.notices, *warnings]
    results = {
        "model": answerer.name,
        "data": str(truth),
        "split": split,
        "auc": area,
        "judge": None if judge is None else judge.model,
        "context": context,
        "tuned": tuned,
        "figures": figures,
    }
    write_results(out, results)
    return results


def _otherwise(taught: Context, context: Context | None, tuned: bool | None) -> list[str]:
    """Warnings about a model that is asked about entities in another way than it was taught."""
    found = []
    if context not in (None, taught):
        found.append(f"the model was taught with context={taught}, but asked with {context}")
    if tuned is False:
        found.append('the model was taught without, but asked with "Answer with Yes or No."')
    return found


def _check_labels(images: Sequence[QRealImage], answerer: Answerer) -> None:
    """Refuse a label that would break out of its question, before anything is asked."""
    for image in images:
        for entity in image.entities:
            answerer.check_text(entity.label, f"{image.where}: entity {brief(entity.id)}: 'label'")


def _questions(
    task: str, images: Sequence[QRealImage], answerer: Answerer, context: Context, tuned: bool
) -> Iterator[LoggedQuestion]:
    """All questions of a task; an image is read when it is first asked about."""
    for image in images:
        opened = Opened(image)
        if task == "object":
            yield from _about_entities(opened, answerer, context, tuned)
        else:
            yield from _about_image(opened, answerer)


def _about_entities(
    opened: Opened, answerer: Answerer, context: Context, tuned: bool
) -> Iterator[LoggedQuestion]:
    for entity in opened.image.entities:

        def ask(key: str, entity: Any = entity) -> ImageQuestion:
            pixels, size = opened.pixels, opened.size
            shown = pixels if context == "image" else crop_entity(pixels, entity.bbox)
            space = answerer.input_size(size) if context == "image" else size
            text = entity_question(key, entity, context, size, space, tuned)
            return ImageQuestion(shown, text, yes_no=True)

        for key in QUESTIONS:
            known = {"entity": entity.id, "question": key}
            yield LoggedQuestion(f"{entity.id} {key}", known, partial(ask, key))


def _about_image(opened: Opened, answerer: Answerer) -> Iterator[LoggedQuestion]:
    image = opened.image

    def ask(dimension: Dimension) -> ImageQuestion:
        return ImageQuestion(opened.pixels, list_question(dimension, answerer.counts_pixels))

    for dimension in DIMENSIONS:
        known = {"image": image.image, "dimension": dimension}
        key = f"{image.image} {dimension}"
        yield LoggedQuestion(key, known, partial(ask, dimension), boxes=True)


class Opened:
    """An image file that is read once, when it is needed."""

    def __init__(self, image: QRealImage) -> None:
        self.image = image
        self._pixels: UInt8Array | None = None

    @property
    def pixels(self) -> UInt8Array:
        """(H, W, 3) of the image as shown."""
        if self._pixels is None:
            self._pixels = decode_image(self.image.path, str(self.image.path))
        return self._pixels

    @property
    def size(self) -> Size:
        """(width, height)."""
        return self.pixels.shape[1], self.pixels.shape[0]


def _lists(answerer: Answerer) -> list[str]:
    return [list_question(dimension, answerer.counts_pixels) for dimension in DIMENSIONS]


def hash_values(value: Any) -> str:
    """SHA-256 of what is ready for JSON."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
