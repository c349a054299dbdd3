"""Figures of answers to both tasks of Q-Real (Q-Real, Sec. 5, Tables 1 to 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from artifactnet.data.qreal import DIMENSIONS, QUESTIONS, Dimension, QRealImage, count_unverified
from artifactnet.llm.client import Chat
from artifactnet.llm.judge import JudgeResult, judge_texts
from artifactnet.metrics.confusion import ratio
from artifactnet.metrics.entity_boxes import Area, ImagePairs, box_figures, pair_boxes
from artifactnet.metrics.yes_no import mean_scores, yes_no_scores
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.qreal.answers import EntityList
from artifactnet.vlm.qreal.predictions import EntityAnswer, Predictions

Judge = Callable[[list[tuple[str, str]]], JudgeResult]

SPLIT = "test"  # of the bench
SIMILARITY = "similarity.jsonl"  # the judge's answers
_MISSING = EntityAnswer(None, None)
_NOTHING = EntityList((), readable=False)


def chosen_images(
    images: Sequence[QRealImage], split: str | None = None
) -> tuple[list[QRealImage], str]:
    """The images of a split, and its name.

    Args:
        images: of a file.
        split: ``train``, ``val``, ``test`` or ``all``; None: the test split, or all images where
            none is in it.

    Raises:
        ArtifactNetError: no image is in the split.
    """
    if split is None:
        split = SPLIT if any(image.split == SPLIT for image in images) else "all"
    found = [image for image in images if split in ("all", image.split)]
    if not found:
        raise ArtifactNetError(f"no image is in the split {split}; --split all takes every image")
    return found, split


def compute_figures(
    images: Sequence[QRealImage],
    predictions: Predictions,
    tasks: Sequence[str],
    area: Area = "exact",
    judge: Judge | None = None,
) -> dict[str, Any]:
    """All figures of both tasks.

    Args:
        images: that were asked about.
        predictions: answers; a missing one counts as one that cannot be read.
        tasks: ``object``, ``image`` or both.
        area: see `artifactnet.metrics.entity_boxes.detection_area`.
        judge: compares descriptions (truth, predicted); None: there is no LLM-Score.

    Returns:
        JSON-ready ``images``, ``entities``, ``unverified`` (images), ``object`` (``questions`` by
        key and their ``mean``) and ``image`` (figures by dimension, and ``portraits``), or None for
        a task that is not asked for; ``warnings``.
    """
    warnings: list[str] = []
    unverified = count_unverified(images)
    if unverified:
        warnings.append(
            f"{unverified} of {len(images)} images were annotated by models alone: no person has "
            "verified them"
        )
    found: dict[str, Any] = {
        "images": len(images),
        "entities": sum(len(image.entities) for image in images),
        "unverified": unverified,
        "object": _object_figures(images, predictions, warnings) if "object" in tasks else None,
        "image": None,
    }
    if "image" in tasks:
        found["image"] = _image_figures(images, predictions, area, judge, warnings)
    return found | {"warnings": warnings}


def endpoint_judge(chat: Chat, cache: Path | None, workers: int = 4) -> Judge:
    """A judge behind an endpoint; ``cache`` as of `judge_texts`."""

    def judge(pairs: list[tuple[str, str]]) -> JudgeResult:
        return judge_texts(pairs, chat, cache, workers=workers)

    return judge


def _object_figures(
    images: Sequence[QRealImage], predictions: Predictions, warnings: list[str]
) -> dict[str, Any]:
    entities = [entity for image in images for entity in image.entities]
    if not entities:
        warnings.append("no image has an entity")
    scores, everything = {}, []
    for key in QUESTIONS:
        answers = [predictions.entities.get((entity.id, key), _MISSING) for entity in entities]
        everything += answers
        scores[key] = yes_no_scores(
            [entity.answers[key] for entity in entities],
            [answer.answer for answer in answers],
            [answer.score for answer in answers],
        )
    missing = sum(answer is _MISSING for answer in everything)
    if missing:
        warnings.append(
            f"{missing} of {len(everything)} questions about entities have no answer: wrong"
        )
    unsaid = sum(answer.cut_off and answer.answer is None for answer in everything)
    if unsaid:
        warnings.append(f"{unsaid} answers about entities were cut off before a Yes or No")
    return {
        "questions": {key: one._asdict() for key, one in scores.items()},
        "mean": mean_scores(list(scores.values())),
        "missing": missing,
        "cut_off": sum(answer.cut_off for answer in everything),
    }


def _image_figures(
    images: Sequence[QRealImage],
    predictions: Predictions,
    area: Area,
    judge: Judge | None,
    warnings: list[str],
) -> dict[str, Any]:
    portraits = [image for image in images if image.is_portrait]
    groups: list[tuple[str, Dimension, Sequence[QRealImage]]] = [
        (dimension, dimension, images) for dimension in DIMENSIONS
    ]
    if portraits:
        groups.append(("portraits", "plausibility", portraits))  # which alone is told by parts
    found: dict[str, Any] = {"portraits": None}
    described: dict[str, list[tuple[str, str]]] = {}
    for name, dimension, chosen in groups:
        lists = [predictions.images.get((one.image, dimension), _NOTHING) for one in chosen]
        paired, described[name] = _pair(chosen, lists, dimension)
        found[name] = box_figures(paired, area) | _counts(lists) | {"llm": None}
        if name == dimension:
            _warn(found[name], dimension, warnings)
    similarities = _judged(described, judge, warnings)
    if similarities is not None:
        for name, dimension, chosen in groups:
            truth = [e.description(dimension) for one in chosen for e in one.problems(dimension)]
            undescribed = truth.count(None)
            found[name]["llm"] = _llm(described[name], similarities, len(truth), undescribed)
            if undescribed and name == dimension:
                warnings.append(
                    f"{dimension}: {undescribed} true entities have no description and are left "
                    "out of LLM-Score, all"
                )
    return found


def _pair(
    images: Sequence[QRealImage], lists: Sequence[EntityList], dimension: Dimension
) -> tuple[list[ImagePairs], list[tuple[str, str]]]:
    """Paired boxes of each image, and the descriptions (truth, predicted) of those that overlap."""
    paired, described = [], []
    for image, answer in zip(images, lists, strict=True):
        truth = image.problems(dimension)
        one = pair_boxes([e.bbox for e in answer.entities], [e.bbox for e in truth])
        paired.append(one)
        for pair in one.pairs:
            text = truth[pair.truth].description(dimension)
            if pair.iou > 0 and text is not None:
                described.append((text, answer.entities[pair.predicted].description))
    return paired, described


def _counts(lists: Sequence[EntityList]) -> dict[str, Any]:
    """What else answers are: ``silent`` is the share that say that there is nothing."""
    silent = sum(one.readable and not one.entities for one in lists)
    return {
        "silent": ratio(silent, len(lists)),
        "cut_off": sum(one.cut_off for one in lists),
        "missing": sum(one is _NOTHING for one in lists),
        "unreadable": sum(not one.readable and one is not _NOTHING for one in lists),
        "dropped": sum(one.dropped for one in lists),
    }


def _warn(figures: dict[str, Any], dimension: str, warnings: list[str]) -> None:
    if not figures["predicted"]:
        warnings.append(f"{dimension}: no box was predicted, so IoU, detection rate and AUC are 0")
    for key, what in (
        ("missing", "images have no answer"),
        ("unreadable", "answers name no box and do not say that there is none"),
        ("cut_off", "answers were cut off: they reached the limit of their length"),
        ("dropped", "predicted boxes cannot be used and were left out"),
    ):
        if figures[key]:
            warnings.append(f"{dimension}: {figures[key]} {what}")


def _judged(
    described: Mapping[str, Sequence[tuple[str, str]]], judge: Judge | None, warnings: list[str]
) -> dict[tuple[str, str], float | None] | None:
    """Similarity in [0, 1] of each pair of texts, None where the judge failed."""
    if judge is None:
        return None
    pairs = dict.fromkeys(pair for group in described.values() for pair in group)
    # an empty description says nothing that could be compared
    found: dict[tuple[str, str], float | None] = {p: 0.0 for p in pairs if not p[1].strip()}
    asked = [pair for pair in pairs if pair not in found]
    try:
        result = judge(asked)
    except ArtifactNetError as error:  # the other figures must not be lost
        warnings.append(f"the judge could not be asked, so there is no LLM-Score: {error}")
        return None
    found |= dict(zip(asked, result.each, strict=True))
    if result.failed:
        reason = next(iter(result.problems.values()))
        warnings.append(f"the judge failed on {result.failed} pairs of texts, e.g.: {reason}")
    return found


def _llm(
    described: Sequence[tuple[str, str]],
    similarities: Mapping[tuple[str, str], float | None],
    true: int,
    undescribed: int,
) -> dict[str, Any]:
    """LLM-Score: mean over matched pairs that overlap, and over all true entities described."""
    each = [similarities[pair] for pair in described]
    good = [value for value in each if value is not None]
    failed = len(each) - len(good)
    return {
        "score": math.fsum(good) / len(good) if good else None,
        "all": ratio(math.fsum(good), true - undescribed - failed),
        "pairs": len(good),
        "failed": failed,
        "undescribed": undescribed,
    }
