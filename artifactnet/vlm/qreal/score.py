"""Figures of files of predictions, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artifactnet.data.qreal import read_qreal
from artifactnet.llm.client import Chat
from artifactnet.metrics.entity_boxes import Area
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.coordinates import Unit
from artifactnet.vlm.qreal.figures import (
    SIMILARITY,
    chosen_images,
    compute_figures,
    endpoint_judge,
)
from artifactnet.vlm.qreal.pages import write_results
from artifactnet.vlm.qreal.predictions import read_predictions


def score_qreal(
    truth: str | Path,
    predictions: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    split: str | None = None,
    unit: Unit | None = None,
    area: Area = "exact",
    judge: Chat | None = None,
    allow_missing: bool = False,
    check_images: bool = False,
) -> dict[str, Any]:
    """Score files of predictions for Q-Real.

    Args:
        truth: file of annotations, see `artifactnet.data.qreal`.
        predictions: files, see `predictions`.
        out: folder for ``results.json``, ``results.md`` and the judge's answers; None writes
            nothing.
        split: see `figures.chosen_images`.
        unit: see `predictions.read_predictions`.
        area: see `artifactnet.metrics.entity_boxes.detection_area`.
        judge: model that compares descriptions; None: there is no LLM-Score.
        allow_missing: see `artifactnet.data.qreal.read_qreal`.
        check_images: whether true boxes lie in their images, which must be there then.

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: a file cannot be read or used; the message names file and line.
    """
    everything = read_qreal(truth, allow_missing, images=check_images)
    found = read_predictions(predictions, everything, unit)
    images, split = chosen_images(everything, split)
    tasks = [
        task for task, answers in (("object", found.entities), ("image", found.images)) if answers
    ]
    if not tasks:
        raise ArtifactNetError(f"{', '.join(map(str, predictions))}: no prediction")
    cache = None if out is None else Path(out) / SIMILARITY
    asks = None if judge is None else endpoint_judge(judge, cache)
    results = {
        "model": ", ".join(map(str, predictions)),
        "data": str(truth),
        "split": split,
        "auc": area,
        "judge": None if judge is None else judge.model,
        "figures": compute_figures(images, found, tasks, area, asks),
    }
    if out is not None:
        write_results(out, results)
    return results
