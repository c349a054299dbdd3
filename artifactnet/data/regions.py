"""Regions with captions and image-level tags (FakeXplainer, Sec. 3): reading, bounds, drawing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from artifactnet.data.masks import polygon_box
from artifactnet.data.text import brief
from artifactnet.taxonomy import CATEGORIES, TAG_ALIASES, TAGS, UNCATEGORIZED_BIT
from artifactnet.types import Annotation, ArtifactNetError, Region, Sample, UInt8Array

Corners = tuple[float, float, float, float]  # x1, y1, x2, y2, pixels, half-open

TOLERANCE = 1e-6  # pixels; boxes around public polygons overshoot their image by 1e-13
# of an answer's elements; a caption that held one could not be told from the answer around it
MARKERS = ("<think>", "<tag>", "</tag>", "</think>", "<verdict>", "</verdict>")  # in their order
_LARGEST = 1e9  # pixels; NaN is not below it either
# category -> what is said of a region that nobody described: a noun first, as in Sec. 3.3
CAPTIONS = {
    "low-level-texture": "surface with an unnatural texture",
    "low-level-edge_shape": "outline with a distorted edge or shape",
    "low-level-symbol": "symbol or text, malformed",
    "low-level-color": "area with an unnatural color",
    "high-level-semantics": "object with a wrong or missing part",
    "cognitive-level-commonsense": "object that contradicts common sense",
    "cognitive-level-physics": "part of the scene that contradicts physics",
}
UNNAMED = "area that looks wrong"  # of no category
# category of an edit -> tag of the whole image, by what FakeXplainer's A.2 says of each tag: text
# that cannot be read, and false shadows and reflections (physics), are regions and no tag
_TAGS = {
    "low-level-texture": "wrong texture",
    "low-level-edge_shape": "structure/attribute error",
    "low-level-color": "structure/attribute error",  # colour is an attribute: "green petals"
    "high-level-semantics": "structure/attribute error",  # parts too many or missing
    # what is there has its own structure, but cannot be there so large, so small or upside down
    "cognitive-level-commonsense": "other anomalies",
}


def parse_regions(value: Any, where: str) -> tuple[Region, ...]:
    """Check regions as JSON holds them: ``[{"bbox": [x1, y1, x2, y2], "caption": TEXT}, ...]``.

    Args:
        value: what was read.
        where: names the place in error messages.

    Raises:
        ArtifactNetError: it has another form, or `parse_corners` or `parse_caption` refuses a part.
            Whether boxes lie in their image is left to `clip_region`.
    """
    if not isinstance(value, list):
        raise ArtifactNetError(
            f"{where}: 'regions' must be a list of {{'bbox', 'caption'}}, not {brief(value)}"
        )
    regions = []
    for number, row in enumerate(value):
        name = f"{where}: regions[{number}]"
        if not isinstance(row, dict) or set(row) != {"bbox", "caption"}:
            raise ArtifactNetError(
                f"{name} must be an object with the keys 'bbox' and 'caption' alone, not "
                f"{brief(row)}"
            )
        box = parse_corners(row["bbox"], f"{name}: 'bbox'")
        regions.append(Region(box, parse_caption(row["caption"], f"{name}: 'caption'")))
    return tuple(regions)


def are_coordinates(values: Iterable[Any]) -> bool:
    """Whether all values, as JSON holds them, are finite numbers that could be of pixels."""
    return all(
        isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < _LARGEST for v in values
    )


def parse_corners(value: Any, what: str) -> Corners:
    """A box [x1, y1, x2, y2] in pixels, half-open; ``what`` names it in error messages.

    Raises:
        ArtifactNetError: it is no list of four finite numbers, starts left of or above its image
            (by more than `TOLERANCE`), or is empty.
    """
    if not (isinstance(value, list | tuple) and len(value) == 4 and are_coordinates(value)):
        raise ArtifactNetError(
            f"{what} must be [x1, y1, x2, y2], four finite numbers of pixels, not {brief(value)}"
        )
    x1, y1, x2, y2 = map(float, value)
    if min(x1, y1) < -TOLERANCE or x1 >= x2 or y1 >= y2:
        raise ArtifactNetError(
            f"{what} must have 0 <= x1 < x2 and 0 <= y1 < y2, it is {brief(value)}"
        )
    return x1, y1, x2, y2


def parse_caption(value: Any, what: str) -> str:
    """A caption; ``what`` names it in error messages.

    Raises:
        ArtifactNetError: it is no text, blank, no Unicode, or has one of `MARKERS` in it.
    """
    if not isinstance(value, str) or not value.strip():
        raise ArtifactNetError(f"{what} must be text that is not blank, not {brief(value)}")
    marker = next((marker for marker in MARKERS if marker in value.lower()), None)
    if marker is not None:
        raise ArtifactNetError(
            f"{what} must not hold {marker}, which separates the parts of an answer: {brief(value)}"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half a character, which no tokenizer takes
        raise ArtifactNetError(f"{what} is no Unicode text ({error.reason})") from None
    return value


def parse_tags(value: Any, what: str) -> tuple[str, ...]:
    """Check a list of tags, and name each as `artifactnet.taxonomy.TAGS` does.

    Args:
        value: what was read; a tag may have one of the names of `TAG_ALIASES`.
        what: names the list in error messages.

    Raises:
        ArtifactNetError: it is no list, or a tag is unknown or named twice.
    """
    if not isinstance(value, list | tuple):
        raise ArtifactNetError(f"{what} must be a list of tags, not {brief(value)}")
    tags: list[str] = []
    for name in value:
        tag = TAG_ALIASES.get(name, name) if isinstance(name, str) else None
        if tag not in TAGS:
            raise ArtifactNetError(f"{what}: unknown tag {brief(name)}; known: {', '.join(TAGS)}")
        if tag in tags:
            raise ArtifactNetError(f"{what}: the tag {tag!r} is named twice")
        tags.append(tag)
    return tuple(tags)


def clip_region(region: Region, size: tuple[int, int], where: str) -> Region:
    """A region of an image of ``size`` (height, width), clipped by at most `TOLERANCE`.

    Raises:
        ArtifactNetError: it reaches further out of the image, or lies outside of it.
    """
    height, width = size
    x1, y1, x2, y2 = region.bbox
    if min(x1, y1) < -TOLERANCE or x2 > width + TOLERANCE or y2 > height + TOLERANCE:
        raise ArtifactNetError(
            f"{where}: bbox {list(region.bbox)} reaches out of the {width}x{height} image; boxes "
            "are [x1, y1, x2, y2] in pixels"
        )
    box = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ArtifactNetError(
            f"{where}: bbox {list(region.bbox)} is empty within the {width}x{height} image"
        )
    return Region(box, region.caption)


def clip_regions(
    regions: Iterable[Region], size: tuple[int, int], where: str
) -> tuple[Region, ...]:
    """`clip_region` of each; ``where`` names their list in error messages."""
    return tuple(clip_region(r, size, f"{where}: regions[{k}]") for k, r in enumerate(regions))


def annotated_regions(sample: Sample) -> tuple[Region, ...] | None:
    """What is known of an image's regions: annotated ones, else boxes of its mask.

    Empty where somebody looked and found nothing; None where nobody did.
    """
    if sample.regions is not None:
        return sample.regions
    if sample.mask is not None:
        return regions_of_mask(sample.mask)
    return () if sample.record.annotation is Annotation.CLEAN else None


def regions_of_polygons(
    labels: Sequence[Mapping[str, Any]], size: tuple[int, int], where: str
) -> tuple[Region, ...]:
    """One region for each of X-AIGD's polygons in an image of ``size`` (height, width).

    Its box is the one around the pixels that `artifactnet.data.masks.rasterize` draws, its caption
    that of its category in `CAPTIONS`.

    Raises:
        ArtifactNetError: see `artifactnet.data.masks.rasterize`.
    """
    regions = []
    for number, label in enumerate(labels):
        box = polygon_box(label, *size, f"{where}: polygon {number}")
        x1, y1, x2, y2 = map(float, box)
        regions.append(Region((x1, y1, x2, y2), CAPTIONS[label["label"]]))
    return tuple(regions)


def tags_of_edits(categories: int) -> tuple[str, ...] | None:
    """Tags of an image that controlled edits changed, in the order of `TAGS`.

    Args:
        categories: of the edits, as a bit field; 0 for an untouched photograph.

    Returns:
        None where the category of what was done is unknown.
    """
    if categories & UNCATEGORIZED_BIT:
        return None
    labels = (category.label for category in CATEGORIES if categories & category.bit)
    found = {_TAGS[label] for label in labels if label in _TAGS}
    return tuple(tag for tag in TAGS if tag in found)


def regions_of_mask(mask: UInt8Array) -> tuple[Region, ...]:
    """Boxes of the 8-connected regions of a bit-field mask (H, W), category by category.

    Their captions are those of `CAPTIONS`; an artifact without a category is used where no
    category is.
    """
    found = []
    for category in CATEGORIES:
        found += _boxes((mask & category.bit) > 0, CAPTIONS[category.label])
    return tuple(found or _boxes(mask > 0, UNNAMED))


def _boxes(mask: npt.NDArray[np.bool_], caption: str) -> list[Region]:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    boxes = [tuple(map(float, (x, y, x + w, y + h))) for x, y, w, h, _ in stats[1:]]
    return [Region((x1, y1, x2, y2), caption) for x1, y1, x2, y2 in sorted(boxes)]


def draw_corners(boxes: Iterable[Corners], size: tuple[int, int]) -> UInt8Array:
    """Mask of some boxes: every pixel that a box covers by at least half, at least one per box.

    Args:
        boxes: each overlaps an image of ``size`` (height, width); parts outside are cut off.
        size: of the mask.

    Returns:
        (H, W) uint8, 0 or bit 0.
    """
    mask = np.zeros(size, np.uint8)
    for box in boxes:
        left, top, right, bottom = whole_corners(box, size)
        mask[top:bottom, left:right] = UNCATEGORIZED_BIT
    return mask


def whole_corners(box: Corners, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels that a box covers by at least half, at least one, as a half-open box.

    Arguments as of `draw_corners`.
    """
    height, width = size
    x1, y1, x2, y2 = box
    left = min(width - 1, max(0, math.floor(x1 + 0.5)))
    top = min(height - 1, max(0, math.floor(y1 + 0.5)))
    right = min(width, max(left + 1, math.floor(x2 + 0.5)))
    bottom = min(height, max(top + 1, math.floor(y2 + 0.5)))
    return left, top, right, bottom
