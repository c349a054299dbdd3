"""Expl-AIGI-Eval (HEIE, Yang et al. 2024): text, heatmap and score of AI images, as JSON lines.

One line is ``{"id", "image", "heatmap", "score", "conversations": [{"from", "value"}, ...]}``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artifactnet.data.converters.common import Conversion, ManifestWriter
from artifactnet.data.folder_names import split_of
from artifactnet.data.heatmaps import read_gray
from artifactnet.data.image_folders import ImageFolder
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.types import Annotation, ArtifactNetError

SPEAKERS = ("human", "gpt")
SUFFIX = ".jsonl"
_TEXTS = ("id", "image", "heatmap")


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance of a conversation; ``speaker`` is one of `SPEAKERS`."""

    speaker: str
    text: str


@dataclass(frozen=True, slots=True)
class ExplRecord:
    """One image.

    Attributes:
        id: of the image, unique within the file.
        image, heatmap: paths as the file gives them.
        score: plausibility in [0, 1]; None where it is null, or the file's score column is no
            label.
        conversations: question and explanation, with the marks ``[MAP]`` and ``[SCORE]``.
        where: ``FILE:LINE``.
    """

    id: str
    image: str
    heatmap: str
    score: float | None
    conversations: tuple[Turn, ...]
    where: str

    @property
    def text(self) -> str | None:
        """All turns of ``gpt``, joined by line ends: chains of thought may be split; else None."""
        texts = [turn.text for turn in self.conversations if turn.speaker == SPEAKERS[1]]
        return "\n".join(text for text in texts if text.strip()) or None


def read_expl_aigi_eval(path: Path) -> tuple[list[ExplRecord], list[str]]:
    """Read one file: its records, and warnings.

    A score column that holds one and the same value throughout, as in the public file of the
    RichHF-18K dev split, is a defect and no label: the scores become None, with a warning.

    Raises:
        ArtifactNetError: the file cannot be read, a line lacks a key or has a value of another
            type, a score is outside [0, 1], or an id occurs twice; the message names the line.
    """
    records = []
    first: dict[str, str] = {}
    for number, text in enumerate(read_text(path).split("\n"), 1):
        if not text.strip():
            continue
        where = f"{path}:{number}"
        record = _parse_record(parse_json(text, where), where)
        if first.setdefault(record.id, where) != where:
            other = first[record.id]
            raise ArtifactNetError(f"{where}: id {brief(record.id)} occurs already in {other}")
        records.append(record)
    if not records:
        raise ArtifactNetError(f"{path}: holds no record")
    scores = [record.score for record in records if record.score is not None]
    if len(set(scores)) != 1 or len(scores) == 1:
        return records, []
    return [replace(record, score=None) for record in records], [
        f"{path}: all {len(scores)} scores are {scores[0]}: a defect of the file, no label; they "
        "are left out"
    ]


def convert_expl_aigi_eval(
    source: Path,
    images: Path,
    out: Path,
    *,
    name: str = "expl_aigi_eval",
    generator: str = "pickapic",
    overwrite: bool = False,
) -> Conversion:
    """Make a manifest of Expl-AIGI-Eval: a ``.jsonl`` file, or a folder of them.

    A heatmap is looked for below ``images`` and below the folder of the JSON lines, at the path
    that its record gives; an all-zero one means annotated and clean, a missing one not annotated.
    The split is the last word of a file's name (``..._train``, ``_dev``, ``_test``). Records
    without image, and those whose heatmap has another aspect ratio, are left out, counted and
    listed. What ``gpt`` says becomes the text of its image. Arguments: see `convert_dataset`.

    Raises:
        ArtifactNetError: see `read_expl_aigi_eval`, `ManifestWriter`; nothing can be used; two
            records give an image different heatmaps or splits.
    """
    files = sorted(source.glob(f"*{SUFFIX}")) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        raise ArtifactNetError(f"{source}: no such file, nor a folder with a {SUFFIX} file")
    writer = ManifestWriter(out, name, overwrite, inputs=[images], generator=generator)
    read_files = [(path, *read_expl_aigi_eval(path)) for path in files]
    # Public archives hold the heatmaps below the images, with the same stems.
    maps = {record.heatmap for _, records, _ in read_files for record in records}
    folder = ImageFolder(images, maps)
    for file, records, _ in read_files:
        split = split_of(file.stem.rpartition("_")[2])
        for record in records:
            image, size = writer.find(folder, record.image, record.where)
            if image is None:
                continue
            line = ManifestLine(image, record.id, 1, Annotation.NONE, split, generator)
            line = replace(line, score=record.score, text=record.text, where=record.where)
            candidates = [base / record.heatmap for base in (images, file.parent)]
            path = next((path for path in candidates if os.path.isfile(path)), None)
            heatmap = None
            if path is None:
                writer.leave_out("heatmaps are missing: not annotated", record.heatmap)
            else:
                heatmap = read_gray(path, f"{record.where}: heatmap {path}")
            writer.add(line, folder.key(image), size=size, heatmap=heatmap)
    warnings = [text for _, _, found in read_files for text in found]
    return writer.finish(source, warnings + folder.skipped.describe(images))


def _parse_record(row: Any, where: str) -> ExplRecord:
    if not isinstance(row, dict):
        raise ArtifactNetError(f"{where}: must be a JSON object, not {type(row).__name__}")
    for key in (*_TEXTS, "score", "conversations"):
        if key not in row:
            raise ArtifactNetError(f"{where}: {key!r} is missing; is this Expl-AIGI-Eval?")
    for key in _TEXTS:
        if not isinstance(row[key], str) or not row[key] or "\0" in row[key]:
            raise ArtifactNetError(f"{where}: {key!r} must be text, not {brief(row[key])}")
    score = row["score"]
    numeric = isinstance(score, int | float) and not isinstance(score, bool)
    if score is not None and not (numeric and 0 <= score <= 1):
        raise ArtifactNetError(
            f"{where}: 'score' must be a number from 0 to 1, or null, not {brief(score)}"
        )
    turns = row["conversations"]
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict)
        and turn.get("from") in SPEAKERS
        and isinstance(turn.get("value"), str)
        for turn in turns
    ):
        raise ArtifactNetError(
            f"{where}: 'conversations' must be a list of {{'from': human or gpt, 'value': text}}"
        )
    return ExplRecord(
        id=row["id"],
        image=row["image"],
        heatmap=row["heatmap"],
        score=None if score is None else float(score),
        conversations=tuple(Turn(turn["from"], turn["value"]) for turn in turns),
        where=where,
    )
