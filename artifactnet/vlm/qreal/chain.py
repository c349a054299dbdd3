"""ImageQA by three models in a chain (Q-Real, Table 4, strategy 1).

The first lists all entities, the second says which of them have a problem, and the third describes
it. What passes the second is the answer. How they are asked is our reading: the paper only names
the three steps.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from artifactnet.data.crops import crop_entity
from artifactnet.data.images import shown_size
from artifactnet.data.qreal import DIMENSIONS, Dimension, QRealImage, read_qreal
from artifactnet.data.text import read_text
from artifactnet.files import write_text
from artifactnet.llm.ask import strip_thinking
from artifactnet.llm.client import Chat
from artifactnet.metrics.entity_boxes import Area
from artifactnet.vlm.qreal.answers import EntityList, NamedEntity, read_entities, read_yes_no
from artifactnet.vlm.qreal.benchmark import ANSWERS, Opened, hash_values
from artifactnet.vlm.qreal.figures import (
    SIMILARITY,
    chosen_images,
    compute_figures,
    endpoint_judge,
)
from artifactnet.vlm.qreal.pages import write_results
from artifactnet.vlm.qreal.predictions import read_predictions
from artifactnet.vlm.qreal.prompts import (
    description_question,
    detection_question,
    filter_question,
)
from artifactnet.vlm.qreal.rows import STAGES
from artifactnet.vlm.question_log import LoggedQuestion, answer_questions
from artifactnet.vlm.questions import Answerer, ImageQuestion, LocalAnswerer

DETECT, FILTER, DESCRIBE = STAGES
_Questions = Callable[[Answerer], Iterator[LoggedQuestion]]


class _Found(NamedTuple):
    """An entity that the first model has found, and a dimension in which it may have a problem."""

    image: QRealImage
    number: int  # among the entities of the image
    entity: NamedEntity
    dimension: Dimension

    @property
    def key(self) -> str:
        """Names it in a file of answers; another box or label is another question."""
        what = json.dumps([self.entity.label, *self.entity.bbox])
        return f"{self.image.image} {self.number} {self.dimension} {what}"


def run_chain(
    truth: str | Path,
    models: Mapping[str, Callable[[], Answerer]],
    out: str | Path,
    *,
    split: str | None = None,
    area: Area = "exact",
    judge: Chat | None = None,
    batch_size: int | None = None,
    allow_missing: bool = False,
    report: Callable[[int], None] | None = None,
    replace: bool = False,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Let three models answer ImageQA together; write their answers, ``image.jsonl``, and results.

    The answers of each are in ``detect.jsonl``, ``filter.jsonl`` and ``describe.jsonl``. Called
    again after a kill, it asks what is left. ``image.jsonl`` is a file of predictions.

    Args:
        truth: file of annotations, see `artifactnet.data.qreal`.
        models: by each of `STAGES`, what loads it; one is in memory at a time.
        out: folder of the files.
        split: see `figures.chosen_images`.
        area: see `artifactnet.metrics.entity_boxes.detection_area`.
        judge: model that compares descriptions; None: there is no LLM-Score.
        batch_size: see `answer_questions`.
        allow_missing: see `artifactnet.data.qreal.read_qreal`.
        report: see `answer_questions`.
        replace: see `answer_questions`.
        warnings: more of them for the results.

    Returns:
        The content of ``results.json``, in the form of `benchmark.run_benchmark`.

    Raises:
        ArtifactNetError: the truth cannot be used, the folder has answers of other models, or no
            question can be answered.
    """
    out = Path(out)
    images, split = chosen_images(read_qreal(truth, allow_missing), split)
    settings = {"split": split, "annotations": hash_values([image.image for image in images])}
    names, said, problems = [], [*warnings], []

    def ask(stage: str, prompts: Sequence[str], questions: _Questions) -> dict[str, dict[str, Any]]:
        answerer = models[stage]()
        path, all_settings = out / f"{stage}.jsonl", {**settings, "prompts": hash_values(prompts)}
        problems.extend(
            answer_questions(
                path, questions(answerer), answerer, all_settings, batch_size, report, replace
            )
        )
        names.append(answerer.name)
        said.extend(answerer.notices)
        if isinstance(answerer, LocalAnswerer):  # only one of them fits into the memory
            del answerer
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        lines = _lines(path)
        cut_off = sum(bool(line.get("cut_off")) for line in lines.values())
        if cut_off and stage != FILTER:  # whose answers count if they begin with Yes or No
            said.append(f"{stage}: {cut_off} answers reached the limit of their length")
        return lines

    prompts = [detection_question(pixels) for pixels in (True, False)]
    detected = ask(DETECT, prompts, partial(_detections, images))
    lists = _read_detections(images, detected, said)
    found = [
        _Found(image, number, entity._replace(label=_whole(entity.label)), dimension)
        for image in images
        if image.image in lists
        for dimension in DIMENSIONS
        for number, entity in enumerate(lists[image.image].entities)
    ]
    prompts = [filter_question("", dimension) for dimension in DIMENSIONS]
    judged = ask(FILTER, prompts, partial(_about, found, filter_question, True))
    passed = _passed(found, judged, said)
    prompts = [description_question("", dimension) for dimension in DIMENSIONS]
    described = ask(DESCRIBE, prompts, partial(_about, passed, description_question, False))

    file = out / ANSWERS["image"]
    rows = _answers(images, lists, detected, passed, described)
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    asks = None if judge is None else endpoint_judge(judge, out / SIMILARITY)
    figures = compute_figures(images, read_predictions([file], images), ["image"], area, asks)
    if problems:
        figures["warnings"].append(f"{len(problems)} questions have no answer, e.g. {problems[0]}")
    figures["warnings"] += dict.fromkeys(said)
    results = {
        "model": " -> ".join(names),
        "data": str(truth),
        "split": split,
        "auc": area,
        "judge": None if judge is None else judge.model,
        "figures": figures,
    }
    write_results(out, results)
    return results


def _detections(images: Sequence[QRealImage], answerer: Answerer) -> Iterator[LoggedQuestion]:
    for image in images:

        def ask(image: QRealImage = image) -> ImageQuestion:
            return ImageQuestion(Opened(image).pixels, detection_question(answerer.counts_pixels))

        yield LoggedQuestion(image.image, {"image": image.image}, ask, boxes=True)


def _about(
    found: Sequence[_Found],
    question: Callable[[str, Dimension], str],
    yes_no: bool,
    answerer: Answerer,
) -> Iterator[LoggedQuestion]:
    """A question about each entity, of which the crop is shown."""
    opened: Opened | None = None
    for one in found:
        if opened is None or opened.image is not one.image:
            opened = Opened(one.image)

        def ask(one: _Found = one, opened: Opened = opened) -> ImageQuestion:
            text = question(one.entity.label, one.dimension)
            answerer.check_text(text, "the label")  # which another model has written
            return ImageQuestion(crop_entity(opened.pixels, one.entity.bbox), text, yes_no)

        known = {
            "image": one.image.image,
            "dimension": one.dimension,
            "label": one.entity.label,
            "bbox": list(one.entity.bbox),
        }
        yield LoggedQuestion(one.key, known, ask)


def _read_detections(
    images: Sequence[QRealImage], detected: Mapping[str, Mapping[str, Any]], said: list[str]
) -> dict[str, EntityList]:
    """What was found in each image that has an answer."""
    lists = {}
    for image in images:
        line = detected.get(image.image)
        if line is not None:
            height, width, _ = shown_size(image.path, f"{image.where}: {image.path}")
            space = tuple(line["input_size"])
            lists[image.image] = read_entities(line["answer"], (width, height), space)
    dropped = sum(one.dropped for one in lists.values())
    if dropped:
        said.append(f"{DETECT}: {dropped} boxes cannot be used and were left out")
    return lists


def _passed(
    found: Sequence[_Found], judged: Mapping[str, Mapping[str, Any]], said: list[str]
) -> list[_Found]:
    """The entities that have a problem."""
    words = {key: read_yes_no(line["answer"]) for key, line in judged.items()}
    unreadable = sum(word is None for word in words.values())
    if unreadable:
        said.append(f"{FILTER}: {unreadable} answers are neither Yes nor No, and count as No")
    return [one for one in found if words.get(one.key)]


def _answers(
    images: Sequence[QRealImage],
    lists: Mapping[str, EntityList],
    detected: Mapping[str, Mapping[str, Any]],
    passed: Sequence[_Found],
    described: Mapping[str, Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Lines of a file of predictions; an image in which the first model failed has none."""
    listed: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in passed:
        box = {
            "bbox": list(one.entity.bbox),
            "label": one.entity.label,
            "description": _description(described.get(one.key)),
        }
        listed.setdefault((one.image.image, one.dimension), []).append(box)
    for image in images:
        if image.image not in lists:
            continue
        for dimension in DIMENSIONS:
            row = {"image": image.image, "dimension": dimension}
            if not lists[image.image].readable:  # no list, so it does not say that nothing is wrong
                line = detected[image.image]
                yield {**row, "answer": line["answer"], "input_size": line["input_size"]}
                continue
            yield {**row, "boxes": listed.get((image.image, dimension), [])}


def _whole(label: str) -> str:
    """A label without half characters, which JSON may hold, but no tokenizer takes."""
    return label.encode("utf-8", "replace").decode("utf-8")


def _description(line: Mapping[str, Any] | None) -> str:
    return "" if line is None else strip_thinking(line["answer"]).strip()


def _lines(path: Path) -> dict[str, dict[str, Any]]:
    """Lines of a finished file of answers, by key."""
    rows = map(json.loads, filter(None, read_text(path).split("\n")))
    return {row["path"]: row for row in rows}
