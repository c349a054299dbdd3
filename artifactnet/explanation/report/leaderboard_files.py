"""A leaderboard of saved predictions: files as ``predict`` writes them, labels from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from artifactnet.data.test_sets.read import read_test_set
from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.explanation.report.leaderboard import (
    Answer,
    BoardImage,
    Condition,
    LeaderboardResult,
    write_leaderboard,
)
from artifactnet.types import ArtifactNetError, UInt8Array


def leaderboard_of_files(
    predictions: Mapping[str, str | Path],
    labels: str | Path,
    out: str | Path,
    *,
    title: str | None = None,
    disagreements: int = 12,
) -> LeaderboardResult:
    """Compare models by their files of predictions.

    Args:
        predictions: name of each model, and its ``predictions.jsonl``: lines with ``path`` (the
            image file, relative to the current folder), ``is_fake``, and ``probability`` if it has
            one.
        labels: what is real and fake, in any form of `read_test_set`, whose name is that of the
            folder or file. Its images that no model answered are not counted.
        out: see `write_leaderboard`.
        title: of the page; None: of the labels.
        disagreements: see `write_leaderboard`.

    Raises:
        ArtifactNetError: a file cannot be read, a line of it cannot be used, an image is answered
            twice or has no label; or any error of `write_leaderboard`.
    """
    if not predictions:
        raise ArtifactNetError("a leaderboard needs the predictions of one model or more")
    labels = Path(labels)
    data = labels.resolve().name
    test_set = read_test_set(data, labels)
    keys = {
        os.path.abspath(record.location): key
        for record, key in zip(test_set.records, test_set.keys, strict=True)
    }
    answers = {name: read_answers(file, keys, labels) for name, file in predictions.items()}
    asked: set[str] = set().union(*answers.values())

    def load(index: int) -> UInt8Array:
        return test_set.load(index).image

    images = [
        BoardImage(key, record.label, record.generator, partial(load, index))
        for index, (key, record) in enumerate(zip(test_set.keys, test_set.records, strict=True))
        if key in asked
    ]
    return write_leaderboard(
        out,
        [Condition(data, images, answers)],
        title=title or f"Leaderboard on {data}",
        disagreements=disagreements,
        warnings=test_set.warnings,
    )


def read_answers(
    file: str | Path, keys: Mapping[str, str], labels: str | Path
) -> dict[str, Answer]:
    """Answers of a file of predictions by key of the image; empty lines are skipped.

    Args:
        file: of predictions.
        keys: of the images of ``labels``, by absolute path.
        labels: for error messages.

    Raises:
        ArtifactNetError: as of `leaderboard_of_files`; the message names file and line.
    """
    found: dict[str, Answer] = {}
    for number, text in enumerate(read_text(Path(file)).split("\n"), 1):
        if not text.strip():
            continue
        where = f"{file}:{number}"
        row = parse_json(text, where)
        if not isinstance(row, dict) or not isinstance(row.get("path"), str):
            raise ArtifactNetError(f"{where}: needs a 'path', as predict writes it")
        key = keys.get(os.path.abspath(row["path"]))
        if key is None:
            raise ArtifactNetError(f"{where}: {labels} has no label for {brief(row['path'])}")
        if key in found:
            raise ArtifactNetError(f"{where}: {brief(row['path'])} is answered twice; keep one")
        found[key] = _answer(row, where)
    if not found:
        raise ArtifactNetError(f"{file}: has no prediction")
    return found


def _answer(row: Mapping[str, Any], where: str) -> Answer:
    fake, chance = row.get("is_fake"), row.get("probability")
    if not isinstance(fake, bool):
        raise ArtifactNetError(f"{where}: 'is_fake' must be true or false, not {brief(fake)}")
    number = isinstance(chance, int | float) and not isinstance(chance, bool)
    if chance is not None and not (number and 0 <= chance <= 1):
        raise ArtifactNetError(
            f"{where}: 'probability' must be in [0, 1] or null, not {brief(chance)}"
        )
    return Answer(fake, None if chance is None else float(chance))
