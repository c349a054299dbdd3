"""Several models side by side on one HTML page: tables, ROC curves, generators, disagreement."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from artifactnet.explanation.report.encode import THUMB_SIDE, picture_uri
from artifactnet.explanation.report.html import made, write_html
from artifactnet.explanation.report.leaderboard_charts import condition_charts
from artifactnet.explanation.report.leaderboard_tables import (
    condition_tables,
    overview_tables,
    percent,
)
from artifactnet.files import write_json
from artifactnet.metrics.authenticity import auc
from artifactnet.metrics.calibration import RocPoint, roc_curve
from artifactnet.metrics.confusion import ratio, verdict_scores
from artifactnet.metrics.preference import wilson_interval
from artifactnet.types import ArtifactNetError, UInt8Array

REAL, UNKNOWN = "real", "unknown"  # groups beside those of the generators
_QUALITY = 70  # of a thumbnail


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says about an image."""

    is_fake: bool  # the verdict at the model's own threshold
    probability: float | None = None  # of being fake, in [0, 1]; None: the model has only verdicts


@dataclass(frozen=True, slots=True)
class BoardImage:
    """An image that models were asked about."""

    key: str  # unique within a condition; the page shows it as the image's name
    label: int  # 0 real, 1 fake
    generator: str | None = None  # None if unknown; real images are one group, whatever it says
    # (H, W, 3) sRGB of a thumbnail; called only for images that are shown, and raises
    # `ArtifactNetError` if it cannot be read
    load: Callable[[], UInt8Array] | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """One test: the same images for every model, such as a data set at one level of a corruption.

    Not every condition needs every model. An image that not all of its models answered counts for
    none of them.
    """

    name: str
    images: Sequence[BoardImage]
    answers: Mapping[str, Mapping[str, Answer]]  # name of the model -> `BoardImage.key` -> answer


@dataclass(frozen=True, slots=True)
class LeaderboardResult:
    """What was written."""

    html: Path
    json: Path  # the figures
    figures: dict[str, Any]  # content of ``json``
    notices: tuple[str, ...]  # which images and probabilities were left out


def write_leaderboard(
    path: str | Path,
    conditions: Sequence[Condition],
    *,
    title: str = "Leaderboard",
    disagreements: int = 12,
    warnings: Sequence[str] = (),
) -> LeaderboardResult:
    """Write the page, and its figures as JSON beside it, each atomically.

    Models are ranked by balanced accuracy, meaned over conditions; those that lack a condition come
    last. The AUC is that of `artifactnet.metrics.authenticity`, the ROC curve has every threshold,
    and shares of images have Wilson's 95 % interval.

    Args:
        path: the HTML file, ``NAME.html``; the figures are in ``NAME.json``.
        conditions: one or more; the first is unfolded.
        title: of the page.
        disagreements: how many images each condition shows: those on which models differ most.
        warnings: about models and data, for the head.

    Raises:
        ArtifactNetError: no condition, one without models or without an image that all of its
            models answered, a name or key that occurs twice, an answer about an unknown image, or a
            probability that is not a number in [0, 1].
        OSError: a file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".html":
        raise ArtifactNetError(f"{path}: the page needs a name that ends in .html")
    if not conditions:
        raise ArtifactNetError("a leaderboard needs one condition or more")
    _check_unique([condition.name for condition in conditions], "conditions")
    notices: list[str] = []
    found = [_common(condition, notices) for condition in conditions]
    tables, curves = zip(*(_figures(condition, notices) for condition in found), strict=True)
    models = _ranked([table["models"] for table in tables])
    for table in tables:
        table["models"] = {
            name: table["models"][name] for name in models if name in table["models"]
        }
    figures = {"models": models, "conditions": list(tables)}
    sections = [
        {
            "name": condition.name,
            "charts": condition_charts(table, curves[number], models, number),
            "tables": condition_tables(table),
            "cards": _cards(condition, list(table["models"]), disagreements, notices),
        }
        for number, (condition, table) in enumerate(zip(found, tables, strict=True))
    ]
    head = {"title": title, **made(), "warnings": list(warnings), "notices": notices}
    values = {
        "head": head,
        "models": models,
        "overview": overview_tables(figures) if len(conditions) > 1 else [],
        "sections": sections,
    }
    write_html(path, "leaderboard.html", values, styles=["leaderboard.css"])
    json = path.with_suffix(".json")
    write_json(json, {"title": title, **figures, "notices": notices, "warnings": list(warnings)})
    return LeaderboardResult(path, json, figures, tuple(notices))


def _check_unique(names: Sequence[str], what: str) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ArtifactNetError(f"{count} {what} are called {name!r}; give each a name of its own")


def _common(condition: Condition, notices: list[str]) -> Condition:
    """The condition with the images that all of its models answered; the answers are checked."""
    name = condition.name
    if not condition.images or not condition.answers:
        raise ArtifactNetError(f"{name}: a condition needs an image and a model")
    _check_unique([image.key for image in condition.images], f"images of {name}")
    keys = {image.key for image in condition.images}
    for model, answers in condition.answers.items():
        unknown = next((key for key in answers if key not in keys), None)
        if unknown is not None:
            raise ArtifactNetError(f"{name}: {model} answers about {unknown!r}, which is no image")
        for key, answer in answers.items():
            if answer.probability is not None and not 0 <= answer.probability <= 1:
                raise ArtifactNetError(
                    f"{name}: {model} gives {key!r} the probability {answer.probability}, which is "
                    "not in [0, 1]"
                )
    kept = [i for i in condition.images if all(i.key in a for a in condition.answers.values())]
    left_out = len(condition.images) - len(kept)
    if not kept:
        raise ArtifactNetError(f"{name}: no image was answered by all of its models")
    if left_out:
        lacking = ", ".join(
            f"{model} lacks {len(keys) - len(answers)}"
            for model, answers in condition.answers.items()
            if len(answers) < len(keys)
        )
        notices.append(
            f"{name}: {left_out} of {len(keys)} images count for no model, since not all answered "
            f"them ({lacking})."
        )
    return Condition(name, kept, condition.answers)


def _figures(
    condition: Condition, notices: list[str]
) -> tuple[dict[str, Any], dict[str, list[RocPoint]]]:
    """``name``, counts of images and scores of each model; and the ROC curves that there are."""
    labels = [image.label for image in condition.images]
    models: dict[str, Any] = {}
    curves: dict[str, list[RocPoint]] = {}
    for model, answers in condition.answers.items():
        called = [answers[image.key].is_fake for image in condition.images]
        pairs = [(label == 1, fake) for label, fake in zip(labels, called, strict=True)]
        scores = verdict_scores(
            tp=pairs.count((True, True)),
            fp=pairs.count((False, True)),
            tn=pairs.count((False, False)),
            fn=pairs.count((True, False)),
        )
        chances = _probabilities(condition, model, notices)
        if chances is not None:
            curves[model] = roc_curve(labels, chances)
        models[model] = {
            **scores,
            "real_interval": _interval(scores["tn"], scores["real"]),
            "fake_interval": _interval(scores["tp"], scores["fake"]),
            "auc": None if chances is None else _auc(labels, chances),
            "generators": _generators(condition, called, chances),
        }
    counts = {"images": len(labels), "real": labels.count(0), "fake": labels.count(1)}
    return {"name": condition.name, **counts, "models": models}, curves


def _probabilities(condition: Condition, model: str, notices: list[str]) -> list[float] | None:
    """Of the images, if the model has them for all."""
    answers = condition.answers[model]
    chances = [answers[image.key].probability for image in condition.images]
    known = [chance for chance in chances if chance is not None]
    if len(known) == len(chances):
        return known
    if known:
        notices.append(
            f"{condition.name}: {model} has a probability for {len(known)} of {len(chances)} "
            "images only, so its verdicts alone count."
        )
    return None


def _auc(labels: Sequence[int], chances: Sequence[float]) -> float | None:
    return auc(torch.tensor(labels), torch.tensor(chances, dtype=torch.float64))


def _interval(part: int, whole: int) -> list[float] | None:
    return list(wilson_interval(part, whole)) if whole else None


def _generators(
    condition: Condition, called: Sequence[bool], chances: Sequence[float] | None
) -> list[dict[str, Any]]:
    """Real images first, then the generators' fakes by name, those of unknown origin last."""
    groups: dict[str, list[int]] = {}
    for k, image in enumerate(condition.images):
        generator = UNKNOWN if image.generator in (None, REAL) else image.generator
        groups.setdefault(generator if image.label == 1 else REAL, []).append(k)
    order = sorted(groups, key=lambda name: (name != REAL, name == UNKNOWN, name))
    labels = [image.label for image in condition.images]
    reals = [k for k, label in enumerate(labels) if label == 0]
    rows = []
    for name in order:
        own = groups[name]
        right = sum(called[k] == (labels[k] == 1) for k in own)
        against = [*reals, *own]  # an AUC needs both classes
        area = None
        if chances is not None and name != REAL:
            area = _auc([labels[k] for k in against], [chances[k] for k in against])
        rows.append(
            {
                "name": name,
                "images": len(own),
                "accuracy": ratio(right, len(own)),
                "interval": _interval(right, len(own)),
                "auc": area,
            }
        )
    return rows


def _ranked(tables: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Every model once, the best first."""
    scores: dict[str, list[float]] = {}
    for models in tables:
        for name, figures in models.items():
            scores.setdefault(name, []).append(figures["balanced_accuracy"])
    return sorted(scores, key=lambda name: (-len(scores[name]), -statistics.fmean(scores[name])))


def _cards(
    condition: Condition, models: Sequence[str], count: int, notices: list[str]
) -> list[dict[str, Any]]:
    """The images on which the models differ most, if there are two or more models.

    First by the spread of the probabilities, where at least two models have one for the image, then
    by how many contradict the majority's verdict.
    """

    def spread(image: BoardImage) -> tuple[float, int]:
        answers = [condition.answers[model][image.key] for model in models]
        chances = [a.probability for a in answers if a.probability is not None] or [0.0]
        fakes = sum(answer.is_fake for answer in answers)
        return max(chances) - min(chances), min(fakes, len(answers) - fakes)

    ranked = sorted(condition.images, key=spread, reverse=True)[: max(0, count)]
    cards = []
    for image in ranked:
        if not any(spread(image)):
            break
        answers = [(model, condition.answers[model][image.key]) for model in models]
        cards.append(
            {
                "name": image.key,
                "label": ("real", "fake")[image.label],
                "generator": image.generator if image.label == 1 else None,
                "picture": _thumbnail(image, condition.name, notices),
                "answers": [
                    {
                        "model": model,
                        "shown": percent(answer.probability),
                        "verdict": "fake" if answer.is_fake else "real",
                        "right": answer.is_fake == (image.label == 1),
                    }
                    for model, answer in answers
                ],
            }
        )
    return cards


def _thumbnail(image: BoardImage, condition: str, notices: list[str]) -> str | None:
    if image.load is None:
        return None
    try:
        return picture_uri(image.load(), THUMB_SIDE, _QUALITY)
    except ArtifactNetError as error:
        notices.append(f"{condition}: no picture of {image.key}: {error}")
        return None
