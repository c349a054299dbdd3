"""Pictures of maps and masks: colours, overlays, outlines, grids. Arrays in, arrays out.

Maps in [0, 1] are never stretched per image, so that pictures can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED_BIT, UNCATEGORIZED_COLOR
from artifactnet.types import Float32Array, UInt8Array

# black - purple - red - yellow - white: brightness rises steadily, so it also reads in gray
_RAMP = np.array(
    [(0, 0, 0), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 220)],
    dtype=np.float64,
)
_FONT_SIZE = 11  # pixels
_CAPTION_HEIGHT = 16
_GAP = 4


def colorize(heatmap: npt.NDArray[np.floating]) -> UInt8Array:
    """(H, W, 3) sRGB of a (H, W) map clipped to [0, 1]: 0 is black, 1 nearly white.

    Raises:
        ValueError: not two-dimensional, or not finite.
    """
    if heatmap.ndim != 2:
        raise ValueError(f"a heatmap has two axes, not shape {heatmap.shape}")
    if not np.isfinite(heatmap).all():
        raise ValueError("the heatmap holds NaN or infinite values")
    position = np.clip(heatmap.astype(np.float64), 0, 1) * (len(_RAMP) - 1)
    below = np.minimum(position.astype(np.int64), len(_RAMP) - 2)
    share = (position - below)[..., None]
    colors = _RAMP[below] * (1 - share) + _RAMP[below + 1] * share
    return np.rint(colors).astype(np.uint8)


def resize_map(heatmap: npt.NDArray[np.floating], height: int, width: int) -> Float32Array:
    """Bilinear resize of a float map to (height, width); values stay within their range."""
    image = Image.fromarray(np.ascontiguousarray(heatmap, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)


def overlay(
    image: UInt8Array, heatmap: npt.NDArray[np.floating], opacity: float = 0.6
) -> UInt8Array:
    """Image (H, W, 3) under a map (h, w) in [0, 1] of any size; unchanged where the map is 0.

    ``opacity`` is the share of the map's colour where the map is 1.
    """
    height, width = image.shape[:2]
    heatmap = np.clip(resize_map(heatmap, height, width), 0, 1)
    weight = (opacity * heatmap)[..., None]
    return np.rint(image * (1 - weight) + colorize(heatmap) * weight).astype(np.uint8)


def outline(image: UInt8Array, mask: UInt8Array, thickness: int = 1) -> UInt8Array:
    """Copy of an image (H, W, 3) with the borders of every category in the category's colour.

    Args:
        image: (H, W, 3) sRGB.
        mask: (H, W) bit field (see `artifactnet.taxonomy`).
        thickness: of the line, pixels; drawn inside the region.

    Raises:
        ValueError: the sizes differ.
    """
    if mask.shape != image.shape[:2]:
        raise ValueError(f"mask of {mask.shape} on an image of {image.shape[:2]}")
    drawn = image.copy()
    colors = {UNCATEGORIZED_BIT: UNCATEGORIZED_COLOR} | {c.bit: c.color for c in CATEGORIES}
    for bit, color in colors.items():
        region = (mask & bit) != 0
        if region.any():
            drawn[region & ~_shrink(region, thickness)] = color
    return drawn


def _shrink(region: npt.NDArray[np.bool_], pixels: int) -> npt.NDArray[np.bool_]:
    """Erosion by a plus-shaped neighbourhood, once per pixel; outside counts as region."""
    for _ in range(pixels):
        padded = np.pad(region, 1, constant_values=True)
        vertical = padded[:-2, 1:-1] & padded[2:, 1:-1]
        region = region & vertical & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region


def grid(rows: Sequence[Sequence[UInt8Array]], captions: Sequence[Sequence[str]]) -> UInt8Array:
    """One picture (H', W', 3) on white from rows of pictures (H, W, 3), each with a caption.

    Raises:
        ValueError: no picture at all, or captions of another layout.
    """
    if [len(row) for row in rows] != [len(row) for row in captions]:
        raise ValueError("captions must have one text per picture")
    pictures = [picture for row in rows for picture in row]
    if not pictures:
        raise ValueError("a grid needs at least one picture")
    height = max(picture.shape[0] for picture in pictures) + _CAPTION_HEIGHT + _GAP
    width = max(picture.shape[1] for picture in pictures) + _GAP
    columns = max(len(row) for row in rows)
    canvas = Image.new("RGB", (columns * width + _GAP, len(rows) * height + _GAP), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(_FONT_SIZE)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            left, top = x * width + _GAP, y * height + _GAP
            canvas.paste(Image.fromarray(picture), (left, top))
            text = _fit(captions[y][x], width - _GAP, font)
            draw.text((left, top + picture.shape[0] + 1), text, fill="black", font=font)
    return np.asarray(canvas)


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Text cut with an ellipsis until it is at most ``width`` pixels wide."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
