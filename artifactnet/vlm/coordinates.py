"""What the numbers of a box mean to each family of models, and conversion both ways.

Qwen2.5-VL reads and writes pixels of the image as its processor resized it; the other families
count from 0 to 1000 over the whole image, also where the image is cut into tiles. LLaVA was never
taught boxes: 0 to 1000 is our choice, which fine-tuning teaches.

Sizes are (width, height) here, but (height, width) in `smart_resize`, as everywhere in Qwen's code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from artifactnet.data.text import brief
from artifactnet.types import ArtifactNetError

Size = tuple[int, int]
Box = tuple[float, float, float, float]
WholeBox = tuple[int, int, int, int]
Rule = Literal["pixels", "thousandths"]
Unit = Literal["image", "thousandths"]  # of the numbers in a file of answers

THOUSANDTHS: Size = (1000, 1000)  # input size of every image for a family of that rule
FAMILIES: dict[str, Rule] = {  # by `model_type` in transformers
    "qwen2_5_vl": "pixels",
    "qwen2_vl": "thousandths",
    "qwen3_vl": "thousandths",
    "qwen3_vl_moe": "thousandths",
    "internvl": "thousandths",
    "llava": "thousandths",
    "llava_next": "thousandths",
    "llava_onevision": "thousandths",
    "vipllava": "thousandths",
}
QWEN_PIXELS = (3_136, 12_845_056)  # limits of the released Qwen2.5-VL, which servers keep to
_QWEN_FACTOR = 28  # of Qwen2.5-VL: patches of 14 pixels, 2 x 2 of them to a token
_LARGEST_ASPECT = 200


def rule_of(model_type: str) -> Rule:
    """What coordinates mean to a family.

    Raises:
        ArtifactNetError: the family is unknown; the message names the known ones.
    """
    try:
        return FAMILIES[model_type]
    except KeyError:
        raise ArtifactNetError(
            f"no rule for coordinates of model_type {model_type!r:.80}; known: "
            f"{', '.join(FAMILIES)}"
        ) from None


def smart_resize(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Size to which Qwen's processors resize an image, as (height, width).

    Args:
        height: of the image.
        width: of the image.
        factor: patch size times merge size; both sides become multiples of it (half to even).
        min_pixels: least area; a smaller one is scaled up, rounding up.
        max_pixels: largest area; a larger one is scaled down, rounding down.

    Raises:
        ArtifactNetError: a side is more than 200 times as long as the other, or below one pixel.
    """
    if min(height, width) < 1:
        raise ArtifactNetError(f"an image of {width}x{height} pixels has no pixels")
    if max(height, width) > _LARGEST_ASPECT * min(height, width):
        raise ArtifactNetError(
            f"an image of {width}x{height} pixels is too narrow for the model: one side is more "
            f"than {_LARGEST_ASPECT} times the other; crop it"
        )
    high, wide = (round(side / factor) * factor for side in (height, width))
    if high * wide > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        high, wide = (
            max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)
        )
    elif high * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        high, wide = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return high, wide


def qwen_input_size(
    image_size: Size, pixels: tuple[int, int] = QWEN_PIXELS, factor: int = _QWEN_FACTOR
) -> Size:
    """(width, height) to which Qwen's processors resize an image of (width, height) pixels.

    Args:
        image_size: of the image.
        pixels: least and largest area.
        factor: see `smart_resize`, also for errors.
    """
    high, wide = smart_resize(image_size[1], image_size[0], factor, *pixels)
    return wide, high


def to_model(box: Box, image_size: Size, input_size: Size) -> WholeBox:
    """A box of the image in the model's coordinates: whole numbers, never empty.

    Args:
        box: (x1, y1, x2, y2) in pixels of the image, half-open.
        image_size: (width, height) of the image.
        input_size: (width, height) of the model's coordinates, `THOUSANDTHS` for that rule.
    """
    x1, x2 = _whole(box[0], box[2], image_size[0], input_size[0])
    y1, y2 = _whole(box[1], box[3], image_size[1], input_size[1])
    return x1, y1, x2, y2


def to_image(box: Box, image_size: Size, input_size: Size) -> Box:
    """A box in the model's coordinates in pixels of the image, not rounded and not clipped.

    Arguments as of `to_model`.
    """
    (width, height), (w, h) = image_size, input_size
    x1, y1, x2, y2 = box
    return x1 * width / w, y1 * height / h, x2 * width / w, y2 * height / h


def written_input_size(
    row: Mapping[str, Any], image_size: Size, unit: Unit | None, where: str
) -> Size:
    """(width, height) of the coordinates in an answer of a file.

    Args:
        row: its line, which may have ``"input_size": [width, height]``.
        image_size: (width, height) of the image.
        unit: what its numbers mean otherwise: pixels of the ``image``, or ``thousandths``.
        where: names the line in error messages.

    Raises:
        ArtifactNetError: the size is malformed, or there is neither a size nor a unit.
    """
    value = row.get("input_size")
    if value is not None:
        if not (
            isinstance(value, list)
            and len(value) == 2
            and all(type(side) is int and side > 0 for side in value)
        ):
            raise ArtifactNetError(
                f"{where}: 'input_size' must be [width, height], not {brief(value)}"
            )
        return value[0], value[1]
    if unit is None:
        raise ArtifactNetError(
            f"{where}: what do its coordinates mean? give 'input_size': [width, height], or "
            "--coordinates image|thousandths"
        )
    return image_size if unit == "image" else THOUSANDTHS


def _whole(low: float, high: float, length: int, limit: int) -> tuple[int, int]:
    start, stop = (
        min(max(math.floor(value * limit / length + 0.5), 0), limit) for value in (low, high)
    )
    if stop <= start:  # thinner than one unit
        stop = min(start + 1, limit)
        start = stop - 1
    return start, stop
