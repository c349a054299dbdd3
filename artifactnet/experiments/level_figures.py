"""Figures of the answers of one model about the images of a set at one level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from artifactnet.experiments.evaluated_models import Localization
from artifactnet.metrics.authenticity import auc
from artifactnet.metrics.confusion import ratio, verdict_scores
from artifactnet.types import Record

Line = Mapping[str, Any]  # of `artifactnet.experiments.judging.judge_level`

# row of a table -> key of `level_figures`: of images of both classes, and of one
FIGURES = {"balanced accuracy": "balanced_accuracy", "Acc": "accuracy", "AUC": "auc", "IoU": "iou"}
RECALLS = {"recall of real": "real_recall", "recall of fake": "fake_recall", "IoU": "iou"}
MANY_FAILURES = 0.01  # share of images without a judgment, above which tables say so


def level_figures(
    records: Sequence[Record], lines: Sequence[Line], localization: Localization | None
) -> dict[str, Any]:
    """Figures of answers, JSON-ready; those that are not defined are None.

    An image without a judgment counts as wrong, for the AUC as surely wrong. Of one class there is
    no accuracy, AUC, precision and F1, only its recall.

    IoU is over annotated fakes that have artifacts left after the damage, and those that never had
    any. Of a model with boxes it is the mean of each image's, as FakeXplainer's: of the unions of
    the boxes, 0 where the verdict is real. Of a model with maps it is pooled: one ratio of summed
    pixels.

    Args:
        records: the images.
        lines: an answer about each.
        localization: what the model draws.
    """
    fake = [record.label == 1 for record in records]
    right = [
        line["is_fake"] is not None and line["is_fake"] is truth
        for line, truth in zip(lines, fake, strict=True)
    ]

    def right_of(label: bool) -> int:
        return sum(r for r, f in zip(right, fake, strict=True) if f is label)

    recalls = {
        label: ratio(right_of(label), count) if (count := fake.count(label)) else None
        for label in (False, True)
    }
    both = None not in recalls.values()
    found, kept = right_of(True), right_of(False)
    counts = found, fake.count(False) - kept, kept, fake.count(True) - found
    scores = verdict_scores(*counts) if both else {}
    marked = [line for line, is_fake in zip(lines, fake, strict=True) if is_fake]
    compared = [line for line in marked if line["areas"] is not None and line["truth"] == "known"]
    return {
        "images": len(lines),
        "failed": sum(line["problem"] is not None for line in lines),
        "balanced_accuracy": math.fsum(r or 0.0 for r in recalls.values()) / 2 if both else None,
        "accuracy": sum(right) / len(right) if both else None,
        "auc": _auc(fake, lines),
        "iou": _iou(compared, localization),
        "iou_images": len(compared),
        "iou_lost": sum(line["truth"] == "lost" for line in marked),
        "precision": scores.get("precision"),
        "f1": scores.get("f1"),
        "real_recall": recalls[False],
        "fake_recall": recalls[True],
    }


def _auc(fake: Sequence[bool], lines: Sequence[Line]) -> float | None:
    chances = []
    for is_fake, line in zip(fake, lines, strict=True):
        if line["problem"] is not None:
            chances.append(float(not is_fake))
        elif line["probability"] is None:
            return None
        else:
            chances.append(line["probability"])
    return auc(torch.tensor(fake).long(), torch.tensor(chances, dtype=torch.float64))


def _iou(lines: Sequence[Line], localization: Localization | None) -> float | None:
    if not lines:
        return None
    if localization == "map":
        both, either = (math.fsum(line["areas"][k] for line in lines) for k in (0, 1))
        return ratio(both, either)
    return math.fsum(map(_box_iou, lines)) / len(lines)


def _box_iou(line: Line) -> float:
    both, either = line["areas"]
    if not line["is_fake"]:
        return 0.0
    return float(both / either) if either > 0 else 1.0
