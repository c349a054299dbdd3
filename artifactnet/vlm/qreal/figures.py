"""Figures of answers to both tasks of Q-Real (Q-Real, Sec. 5, Tables 1 to 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


class _Described(NamedTuple):
    """A matched pair whose descriptions are compared."""

    image: int
    truth: str
    predicted: str


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
    scores, missing = {}, 0
    for key in QUESTIONS:
        answers = [predictions.entities.get((entity.id, key), _MISSING) for entity in entities]
        missing += sum(answer is _MISSING for answer in answers)
        scores[key] = yes_no_scores(
            [entity.answers[key] for entity in entities],
            [answer.answer for answer in answers],
            [answer.score for answer in answers],
        )
    if missing:
        total = len(entities) * len(QUESTIONS)
        warnings.append(f"{missing} of {total} questions about entities have no answer: wrong")
    return {
        "questions": {key: one._asdict() for key, one in scores.items()},
        "mean": mean_scores(list(scores.values())),
        "missing": missing,
    }


def _image_figures(
    images: Sequence[QRealImage],
    predictions: Predictions,
    area: Area,
    judge: Judge | None,
    warnings: list[str],
) -> dict[str, Any]:
    portraits = [k for k, image in enumerate(images) if image.is_portrait]
    found: dict[str, Any] = {}
    paired: dict[Dimension, list[ImagePairs]] = {}
    described: dict[Dimension, list[_Described]] = {}
    for dimension in DIMENSIONS:
        lists = [predictions.images.get((one.image, dimension), _NOTHING) for one in images]
        paired[dimension], described[dimension] = _pair(images, lists, dimension)
        found[dimension] = box_figures(paired[dimension], area)
        found[dimension] |= _counts(lists)
        _warn(found[dimension], dimension, warnings)
    if portraits:
        kept: Dimension = "plausibility"  # which alone is described by parts
        found["portraits"] = box_figures([paired[kept][k] for k in portraits], area)
        lists = [predictions.images.get((images[k].image, kept), _NOTHING) for k in portraits]
        found["portraits"] |= _counts(lists)
    groups: dict[str, list[_Described]] = {name: described[name] for name in DIMENSIONS}
    groups["portraits"] = _of(described["plausibility"], portraits)
    similarities = _judged(groups, judge, warnings)
    for name, figures in found.items():
        figures["llm"] = (
            None if similarities is None else _llm(groups[name], similarities, figures["true"])
        )
    return found | ({} if portraits else {"portraits": None})


def _pair(
    images: Sequence[QRealImage], lists: Sequence[EntityList], dimension: Dimension
) -> tuple[list[ImagePairs], list[_Described]]:
    """Paired boxes of each image, and the descriptions of pairs that overlap."""
    paired, described = [], []
    for number, (image, answer) in enumerate(zip(images, lists, strict=True)):
        truth = image.problems(dimension)
        one = pair_boxes([e.bbox for e in answer.entities], [e.bbox for e in truth])
        paired.append(one)
        for pair in one.pairs:
            text = truth[pair.truth].description(dimension)
            if pair.iou > 0 and text is not None:
                said = answer.entities[pair.predicted].description
                described.append(_Described(number, text, said))
    return paired, described


def _counts(lists: Sequence[EntityList]) -> dict[str, int]:
    return {
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
        ("dropped", "predicted boxes cannot be used and were left out"),
    ):
        if figures[key]:
            warnings.append(f"{dimension}: {figures[key]} {what}")


def _of(described: Sequence[_Described], images: Sequence[int]) -> list[_Described]:
    wanted = set(images)
    return [one for one in described if one.image in wanted]


def _judged(
    groups: dict[str, list[_Described]], judge: Judge | None, warnings: list[str]
) -> dict[tuple[str, str], float | None] | None:
    """Similarity in [0, 1] of each pair of texts, None where the judge failed."""
    if judge is None:
        return None
    pairs = dict.fromkeys(one[1:] for group in groups.values() for one in group)
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
    described: Sequence[_Described],
    similarities: dict[tuple[str, str], float | None],
    true: int,
) -> dict[str, Any]:
    """LLM-Score: mean over matched pairs that overlap, and over all true entities."""
    each = [similarities[one[1:]] for one in described]
    good = [value for value in each if value is not None]
    failed = len(each) - len(good)
    return {
        "score": math.fsum(good) / len(good) if good else None,
        "all": ratio(math.fsum(good), true - failed),
        "pairs": len(good),
        "failed": failed,
    }
