"""FakeClue (FakeVLM, Wen et al. 2025): real and fake images with explanations, without boxes.

``data_json/{train,test}.json`` are lists of ``{"image", "label", "cate", "conversations"}``; images
are below ``{split}/``. Its label 0 is fake and 1 is real, the reverse of ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactnet.data.converters.common import Conversion, ManifestWriter
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.types import Annotation, ArtifactNetError

SPLITS = ("train", "test")
REPEATED = "rows are of an image that occurred before"


@dataclass(frozen=True, slots=True)
class Clue:
    """A row: its image, as named and where it should be, and our label, 1 fake."""

    image: str
    path: str
    label: int
    row: dict[str, Any]
    where: str

    @property
    def uid(self) -> str:
        """Path below its split, without suffix."""
        return os.path.splitext(os.path.normpath(self.image))[0]


def convert_fakeclue(
    source: Path,
    images: Path,
    out: Path,
    *,
    name: str = "fakeclue",
    generator: str = "fakeclue",
    overwrite: bool = False,
    texts: bool = False,
) -> Conversion:
    """Make a manifest of FakeClue's folder, or of one of its splits.

    Fakes are not annotated: nothing says where their artifacts are. With ``texts`` what ``gpt``
    says becomes the text of an image. The uid of an image is ``NAME/SPLIT/PATH``, without suffix.
    Rows of an image that occurred before, missing and unreadable images are left out, counted and
    listed. Arguments: see `convert_dataset`; ``images`` holds the split folders.

    Raises:
        ArtifactNetError: no JSON file, or a malformed row; an image with two labels; or see
            `ManifestWriter`.
    """
    files = {split: source / "data_json" / f"{split}.json" for split in SPLITS}
    found = {split: file for split, file in files.items() if file.is_file()}
    if not found:
        raise ArtifactNetError(
            f"{source}: holds neither {' nor '.join(f'data_json/{s}.json' for s in SPLITS)}; is "
            "this FakeClue?"
        )
    if not images.is_dir():
        raise ArtifactNetError(f"{images}: no such folder of images")
    writer = ManifestWriter(out, name, overwrite, inputs=[source, images], generator=generator)
    warnings = [f"{file}: no such file" for split, file in files.items() if split not in found]
    for split, file in found.items():
        for clue in read_clues(file, images / split):
            text = _text(clue.row, clue.where) if texts else None
            if clue.path in writer.claimed:
                writer.leave_out(REPEATED, clue.where)
                continue
            writer.claim(clue.path, clue.where)
            if not os.path.isfile(clue.path):
                writer.leave_out(f"images are not in {images}", f"{split}/{clue.image}")
                continue
            if writer.size(clue.path, clue.where) is None:
                continue
            uid = f"{name}/{split}/{clue.uid}"
            state, maker = (
                (Annotation.NONE, generator) if clue.label else (Annotation.CLEAN, "real")
            )
            line = ManifestLine(
                clue.path, uid, clue.label, state, split, maker, text=text, where=clue.where
            )
            writer.lines.append(line)
    return writer.finish(source, warnings)


def read_clues(file: Path, images: Path) -> Iterator[Clue]:
    """Rows of ``data_json/SPLIT.json``; ``images`` is the folder of that split.

    Raises:
        ArtifactNetError: the file, or a row, is malformed; an image has two labels.
    """
    rows = parse_json(read_text(file), str(file))
    if not isinstance(rows, list):
        raise ArtifactNetError(f"{file}: must hold a list of rows, not {brief(rows)}")
    labels: dict[str, int] = {}
    for number, row in enumerate(rows):
        where = f"{file}: row {number}"
        image, label = _image_and_label(row, where)
        path = str(images / image)
        if labels.setdefault(path, label) != label:
            raise ArtifactNetError(f"{where}: {image} is both real and fake; correct one row")
        yield Clue(image, path, label, row, where)


def _image_and_label(row: Any, where: str) -> tuple[str, int]:
    """Path, and our label: 1 fake, where FakeClue has 0."""
    if not isinstance(row, dict):
        raise ArtifactNetError(f"{where} must be an object, not {brief(row)}")
    image, label = row.get("image"), row.get("label")
    if not isinstance(image, str) or not image or "\0" in image:
        raise ArtifactNetError(f"{where}: 'image' must be a path, not {brief(image)}")
    if type(label) is not int or label not in (0, 1):
        raise ArtifactNetError(f"{where}: 'label' must be 0 (fake) or 1 (real), not {brief(label)}")
    return image, 1 - label


def _text(row: dict[str, Any], where: str) -> str | None:
    turns = row.get("conversations")
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get("value"), str) for turn in turns
    ):
        raise ArtifactNetError(
            f"{where}: 'conversations' must be a list of {{'from', 'value': text}}, not "
            f"{brief(turns)}"
        )
    said = [turn["value"] for turn in turns if turn.get("from") == "gpt"]
    return "\n".join(text for text in said if text.strip()) or None
