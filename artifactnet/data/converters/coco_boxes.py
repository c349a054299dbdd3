"""Boxes in COCO's form: ``images`` and ``annotations`` of one JSON file."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactnet.data.regions import are_coordinates, draw_corners
from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.types import ArtifactNetError, UInt8Array

Box = tuple[float, float, float, float]  # x, y, width, height, pixels


@dataclass(frozen=True, slots=True)
class CocoBox:
    """An entry of ``annotations``.

    Attributes:
        box: x, y, width, height, pixels.
        caption: its ``caption`` as it stands; where it has none, the name of its category; or None.
        where: the entry, for error messages.
    """

    box: Box
    caption: Any
    where: str


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An entry of ``images`` with its annotations.

    Attributes:
        image: its ``file_name``.
        size: the stated (height, width), or None.
        annotations: in the order of the file.
        tags: its ``tags`` as they stand, or None.
        where: the entry, for error messages.
    """

    image: str
    size: tuple[int, int] | None
    annotations: list[CocoBox]
    tags: Any
    where: str

    @property
    def boxes(self) -> list[Box]:
        """The boxes of all annotations."""
        return [annotation.box for annotation in self.annotations]

    def check_size(self, size: tuple[int, int], path: str) -> None:
        """Refuse an image file of another (height, width) than the one stated.

        Raises:
            ArtifactNetError: names the entry, the file and both sizes.
        """
        if self.size is not None and self.size != size:
            raise ArtifactNetError(
                f"{self.where}: {path} is {size[1]}x{size[0]}, its boxes are for "
                f"{self.size[1]}x{self.size[0]}"
            )


def read_boxes(path: Path) -> list[CocoImage]:
    """Images and boxes of a file.

    Raises:
        ArtifactNetError: the file is unreadable, or an entry is malformed, listed twice, or of an
            image that is not listed; the message names the entry.
    """
    data = parse_json(read_text(path), str(path))
    if not isinstance(data, dict) or not all(
        isinstance(data.get(key), list) for key in ("images", "annotations")
    ):
        raise ArtifactNetError(f"{path}: must hold the lists 'images' and 'annotations'")
    categories = data.get("categories")
    named = {
        row["id"]: row.get("name")
        for row in (categories if isinstance(categories, list) else [])
        if isinstance(row, dict) and isinstance(row.get("id"), int | str)
    }
    boxes: dict[Any, list[CocoBox]] = defaultdict(list)
    for number, row in enumerate(data["annotations"]):
        where = f"{path}: annotations[{number}]"
        key, box = _field(row, "image_id", (int, str), where), _box(row, where)
        caption, category = row.get("caption"), row.get("category_id")
        if caption in (None, "") and isinstance(category, int | str):
            caption = named.get(category)
        boxes[key].append(CocoBox(box, caption, where))
    result = []
    ids = set()
    for number, row in enumerate(data["images"]):
        where = f"{path}: images[{number}]"
        key = _field(row, "id", (int, str), where)
        name = _field(row, "file_name", (str,), where)
        if key in ids:
            raise ArtifactNetError(f"{where}: id {brief(key)} occurs twice")
        ids.add(key)
        stated = None
        if "width" in row or "height" in row:
            stated = (_field(row, "height", (int,), where), _field(row, "width", (int,), where))
        result.append(CocoImage(name, stated, boxes[key], row.get("tags"), where))
    unmatched = [key for key in boxes if key not in ids]
    if unmatched:
        raise ArtifactNetError(
            f"{path}: annotations have image_id {brief(unmatched[0])}, no image has"
        )
    return result


def draw_boxes(boxes: list[Box], size: tuple[int, int], where: str) -> UInt8Array:
    """Mask of some boxes in an image of ``size`` (height, width), see `draw_corners`.

    ``where`` names the image in errors.

    Returns:
        (H, W) uint8, 0 or bit 0.

    Raises:
        ArtifactNetError: a box lies outside the image.
    """
    height, width = size
    for x, y, box_width, box_height in boxes:
        if x >= width or y >= height or x + box_width <= 0 or y + box_height <= 0:
            raise ArtifactNetError(
                f"{where}: box {[x, y, box_width, box_height]} lies outside the {width}x{height} "
                "image; boxes are [x, y, width, height] in pixels"
            )
    return draw_corners([(x, y, x + w, y + h) for x, y, w, h in boxes], size)


def _field(row: Any, key: str, kinds: tuple[type, ...], where: str) -> Any:
    value = row.get(key) if isinstance(row, dict) else None
    if isinstance(value, bool) or not isinstance(value, kinds):
        words = " or ".join(kind.__name__ for kind in kinds)
        raise ArtifactNetError(f"{where}: {key!r} must be {words}, not {brief(value)}")
    return value


def _box(row: Any, where: str) -> Box:
    box = row.get("bbox") if isinstance(row, dict) else None
    good = isinstance(box, list) and len(box) == 4 and are_coordinates(box) and min(box[2:]) > 0
    if not good or box is None:
        raise ArtifactNetError(
            f"{where}: 'bbox' must be [x, y, width, height], finite and with a positive size, not "
            f"{brief(box)}"
        )
    x, y, width, height = map(float, box)
    return x, y, width, height
