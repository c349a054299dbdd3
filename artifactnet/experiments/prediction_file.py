"""Predictions made elsewhere, read from a file: JSON lines, one per image and level.

Keys of a line: ``image`` (its path, from the file's folder or below the folder of its set), or
``generator`` and ``uid``; ``level`` (`original`, unless told otherwise); ``set``, needed where two
sets have images of one name; ``probability`` in [0, 1] or ``is_fake``, or both; ``boxes``
([x1, y1, x2, y2], pixels of the damaged image) or ``mask`` (path of a gray picture, from 128 on
artifact). Other keys are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from artifactnet.data.damage import ORIGINAL, parse_level
from artifactnet.data.regions import Corners, parse_corners
from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.types import ArtifactNetError

SUFFIX = ".jsonl"
_VERDICT = 0.5  # a probability from here on is a verdict, where the line has none


@dataclass(frozen=True, slots=True)
class SavedPrediction:
    """A prediction, and where it stands.

    Attributes:
        where: ``FILE:LINE``.
        is_fake: the verdict.
        probability: of being fake; None if the line has none.
        boxes: where artifacts are; None likewise.
        mask: path of a picture of them; None likewise.
    """

    where: str
    is_fake: bool
    probability: float | None
    boxes: tuple[Corners, ...] | None
    mask: str | None


@dataclass(slots=True)
class PredictionFile:
    """The predictions of a file.

    Attributes:
        localization: in what form they say where artifacts are; None: they do not.
    """

    localization: Literal["boxes", "map"] | None = None
    _by_name: dict[tuple[str, str, str], SavedPrediction] = field(default_factory=dict)
    _covered: set[tuple[str, str]] = field(default_factory=set)  # (set or "", level)

    def covers(self, test_set: str, level: str) -> bool:
        """Whether any line is about a set at a level."""
        return bool(self._covered & {(test_set, level), ("", level)})

    def find(self, test_set: str, level: str, names: Iterable[str]) -> SavedPrediction | None:
        """The prediction of an image that has these names; None if there is none."""
        keys = [(of, level, name) for name in names for of in (test_set, "")]
        return next((self._by_name[key] for key in keys if key in self._by_name), None)

    def check_sets(self, sets: Mapping[str, Iterable[Sequence[str]]]) -> None:
        """Refuse a line that would be taken for images of two sets.

        Args:
            sets: name -> of each image the names that it has, the last its absolute path.

        Raises:
            ArtifactNetError: there is such a line.
        """
        used: dict[str, tuple[str, str]] = {}  # where a line stands -> set and path of its image
        levels = {level for _, level in self._covered}
        for test_set, images in sets.items():
            for names in images:
                for level in levels:
                    found = self.find(test_set, level, names)
                    if found is None:
                        continue
                    other, path = used.setdefault(found.where, (test_set, names[-1]))
                    if other != test_set and path != names[-1]:
                        raise ArtifactNetError(
                            f"{found.where}: fits an image of {other} and one of {test_set}, "
                            f"{path} and {names[-1]}; say which with 'set'"
                        )

    def add(self, row: Mapping[str, Any], where: str, folder: Path) -> None:
        """Add a line of a file in ``folder``.

        Raises:
            ArtifactNetError: it is none, or about an image that has a line.
        """
        test_set = _text(row, "set", where, "")
        level = _text(row, "level", where, ORIGINAL)
        try:
            parse_level(level)
        except ArtifactNetError as error:
            raise ArtifactNetError(f"{where}: {error}") from None
        found = _prediction(row, where, folder)
        self._covered.add((test_set, level))
        for kind, value in (("boxes", found.boxes), ("map", found.mask)):
            if value is not None and self.localization not in (None, kind):
                raise ArtifactNetError(f"{where}: the file has boxes and masks; give one of them")
            if value is not None:
                self.localization = "boxes" if kind == "boxes" else "map"
        for name in _names(row, where, folder):
            other = self._by_name.setdefault((test_set, level, name), found)
            if other is not found:
                raise ArtifactNetError(f"{where}: its image has a prediction in {other.where}")


def read_predictions(path: str | Path) -> PredictionFile:
    """Read a file of predictions.

    Raises:
        ArtifactNetError: it cannot be read, holds none, or has a line that is none; the message
            names file, line and key.
    """
    path, found, number = Path(path), PredictionFile(), 0
    for number, text in enumerate(read_text(path).split("\n"), 1):
        if text.strip():
            where = f"{path}:{number}"
            row = parse_json(text, where)
            if not isinstance(row, dict):
                raise ArtifactNetError(f"{where}: not an object: {brief(row)}")
            found.add(row, where, path.parent)
    if not found._by_name:
        raise ArtifactNetError(f"{path}: holds no prediction")
    return found


def _text(row: Mapping[str, Any], key: str, where: str, default: str) -> str:
    value = row.get(key, default)
    if not isinstance(value, str):
        raise ArtifactNetError(f"{where}: {key!r} must be text, not {brief(value)}")
    return value


def _names(row: Mapping[str, Any], where: str, folder: Path) -> set[str]:
    if "image" in row:
        image = _text(row, "image", where, "")
        return {Path(image).as_posix(), os.path.abspath(folder / image)}
    if "generator" in row and "uid" in row:
        return {f"{_text(row, 'generator', where, '')}/{_text(row, 'uid', where, '')}"}
    raise ArtifactNetError(f"{where}: names no image: give 'image', or 'generator' and 'uid'")


def _prediction(row: Mapping[str, Any], where: str, folder: Path) -> SavedPrediction:
    probability: Any = row.get("probability")
    is_fake, boxes = row.get("is_fake"), row.get("boxes")
    if probability is not None and not (
        type(probability) in (int, float) and 0 <= probability <= 1
    ):
        raise ArtifactNetError(
            f"{where}: 'probability' must be a number in [0, 1], not {brief(probability)}"
        )
    if type(is_fake) is not bool and (is_fake is not None or probability is None):
        raise ArtifactNetError(
            f"{where}: needs 'probability', or 'is_fake' as true or false, not {brief(is_fake)}"
        )
    if boxes is not None:
        if not isinstance(boxes, list):
            raise ArtifactNetError(f"{where}: 'boxes' must be a list, not {brief(boxes)}")
        boxes = tuple(parse_corners(box, f"{where}: boxes[{k}]") for k, box in enumerate(boxes))
    return SavedPrediction(
        where,
        is_fake=probability >= _VERDICT if is_fake is None else is_fake,
        probability=None if probability is None else float(probability),
        boxes=boxes,
        mask=None if row.get("mask") is None else str(folder / _text(row, "mask", where, "")),
    )
