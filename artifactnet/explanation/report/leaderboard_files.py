"""A leaderboard of saved predictions: files as ``predict`` writes them, labels from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from artifactnet.data.image_folders import find_images
from artifactnet.data.images import decode_image
from artifactnet.data.manifest_format import read_manifest, record_of
from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.explanation.report.items import short_names
from artifactnet.explanation.report.leaderboard import (
    Answer,
    BoardImage,
    Condition,
    LeaderboardResult,
    write_leaderboard,
)
from artifactnet.types import ArtifactNetError, Record


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
        labels: a manifest, or a folder whose layout says what is real and fake. Its images that no
            model answered are not counted.
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
    records, warnings = _labelled(labels)
    answers = {name: read_answers(file, records, labels) for name, file in predictions.items()}
    asked = [path for path in records if any(path in found for found in answers.values())]
    keys = dict(zip(asked, short_names(asked), strict=True))
    images = [
        BoardImage(
            keys[path],
            records[path].label,
            records[path].generator,
            partial(decode_image, path, path),
        )
        for path in asked
    ]
    named = {
        name: {keys[path]: answer for path, answer in found.items()}
        for name, found in answers.items()
    }
    data = labels.resolve().name
    condition = Condition(data, images, named)
    return write_leaderboard(
        out,
        [condition],
        title=title or f"Leaderboard on {data}",
        disagreements=disagreements,
        warnings=warnings,
    )


def _labelled(labels: Path) -> tuple[dict[str, Record], list[str]]:
    """What is known of each image, by absolute path, and warnings."""
    if labels.is_dir():
        items, warnings = find_images(labels, one_class=True)
        return {os.path.abspath(item.record.location): item.record for item in items}, warnings
    found: dict[str, Record] = {}
    for line in read_manifest(labels):
        first = found.setdefault(line.image_path, record_of(line))
        if first.label != line.label:
            raise ArtifactNetError(
                f"{line.where}: {line.image} has label {line.label} here and {first.label} in "
                f"{first.where}; correct one of them"
            )
    return found, []


def read_answers(
    file: str | Path, records: Mapping[str, Record], labels: str | Path
) -> dict[str, Answer]:
    """Answers of a file of predictions by absolute path; empty lines are skipped.

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
        path = os.path.abspath(row["path"])
        if path not in records:
            raise ArtifactNetError(f"{where}: {labels} has no label for {brief(row['path'])}")
        if path in found:
            raise ArtifactNetError(f"{where}: {brief(row['path'])} is answered twice; keep one")
        found[path] = _answer(row, where)
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
