"""Pictures of one image as data URIs, within a budget of bytes.

Every layer shows the whole image. Sizes in pixels differ, and so, by less than a pixel, do aspect
ratios: a page takes the box's shape from the image and stretches every layer onto it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image

from artifactnet.data.geometry import resample
from artifactnet.explanation.overlay import colorize
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED_BIT, UNCATEGORIZED_COLOR
from artifactnet.types import Float32Array, UInt8Array

BUDGET = 120_000  # characters of all data URIs of one image
HEAT_BUDGET = 60_000  # of them for heatmaps; the rest is for the image
THUMB_SIDE = 192  # pixels of the long side
HEAT_SIDES = (160, 128, 96, 64, 48, 32, 16, 8, 4)  # the browser enlarges them smoothly
# quality and long side of the image, and long side of the masks; the first that fits is taken
STEPS = (
    *((quality, 640) for quality in (80, 70, 60, 50)),
    *((40, side) for side in (640, 512, 400, 320, 256, 192)),
    *((30, 128), (20, 64)),
)
COLORS = {c.bit: c.color for c in CATEGORIES} | {UNCATEGORIZED_BIT: UNCATEGORIZED_COLOR}
_FILL_ALPHA = 90
_LEVELS = 256
_Step = TypeVar("_Step")


@dataclass(frozen=True, slots=True)
class Pictures:
    """Data URIs of one image."""

    thumb: str  # the image, long side at most `THUMB_SIDE`
    layers: dict[str, str]  # ``image``, ``heat:<method>``, and if given ``mask``, ``annotation``


def encode(
    pixels: UInt8Array,
    heatmaps: Mapping[str, Float32Array],
    mask: UInt8Array | None = None,
    annotation: UInt8Array | None = None,
) -> Pictures:
    """All pictures of one image, at most `BUDGET` characters together.

    In fixed steps, heatmaps shrink to `HEAT_BUDGET`; then the image loses quality and, with the
    masks, size until the rest fits.

    Args:
        pixels: (H, W, 3) sRGB.
        heatmaps: (H, W) in [0, 1] by method.
        mask, annotation: (H, W) bit fields, see `artifactnet.taxonomy`.

    Raises:
        ValueError: a map or mask of another size than the image, a map that is not finite, or
            more maps than fit into the budget at their smallest (there are far fewer methods).
    """
    for name, layer in (*heatmaps.items(), ("mask", mask), ("annotation", annotation)):
        if layer is not None and layer.shape != pixels.shape[:2]:
            raise ValueError(f"{name} of {layer.shape} on an image of {pixels.shape[:2]}")
    thumb = picture_uri(pixels, THUMB_SIDE, 70)
    masks = {"mask": mask, "annotation": annotation}
    kept = {name: layer for name, layer in masks.items() if layer is not None}

    def heat(side: int) -> dict[str, str]:
        return {f"heat:{name}": heat_uri(heatmap, side) for name, heatmap in heatmaps.items()}

    @cache  # several steps change the quality alone
    def outlined(side: int) -> dict[str, str]:
        return {name: mask_uri(layer, side) for name, layer in kept.items()}

    def rest(step: tuple[int, int]) -> dict[str, str]:
        quality, side = step
        return {"image": picture_uri(pixels, side, quality)} | outlined(side)

    heats = _first_within(HEAT_BUDGET, HEAT_SIDES, heat)
    rests = _first_within(BUDGET - len(thumb) - characters(heats), STEPS, rest)
    return Pictures(thumb, {"image": rests.pop("image")} | heats | rests)


def _first_within(
    budget: int, steps: tuple[_Step, ...], make: Callable[[_Step], dict[str, str]]
) -> dict[str, str]:
    """The pictures of the first step that keeps the budget; each step makes smaller ones."""
    for step in steps:
        pictures = make(step)
        if characters(pictures) <= budget:
            return pictures
    raise ValueError(f"{len(pictures)} pictures do not fit into {budget} characters")


def characters(uris: Mapping[str, str]) -> int:
    """Length of all data URIs together."""
    return sum(len(uri) for uri in uris.values())


def fit(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Height and width, at least 1, with a long side of at most ``side``; never enlarged."""
    height, width = shape[:2]
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def picture_uri(pixels: UInt8Array, side: int, quality: int) -> str:
    """An image (H, W, 3) as WebP of quality 0..100, its long side at most ``side`` pixels."""
    small = resample(pixels, fit(pixels.shape, side))
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, format="WEBP", quality=quality, method=4)
    return _uri("webp", buffer)


def heat_uri(heatmap: Float32Array, side: int) -> str:
    """A (H, W) heatmap as PNG in the colours of `colorize`; its values are the opacity, too.

    It is clipped to [0, 1] and averaged down to a long side of at most ``side`` pixels. Values that
    are not finite are a `ValueError`.
    """
    if not np.isfinite(heatmap).all():
        raise ValueError("the heatmap holds NaN or infinite values")
    small = np.clip(resample(heatmap, fit(heatmap.shape, side)), 0, 1)
    levels = np.rint(small * (_LEVELS - 1)).astype(np.uint8)
    ramp = colorize(np.linspace(0, 1, _LEVELS)[None])[0]
    return _palette_uri(levels, ramp, np.arange(_LEVELS, dtype=np.uint8))


def mask_uri(mask: UInt8Array, side: int) -> str:
    """A mask as PNG: each category a translucent area with an opaque outline in its colour.

    No region vanishes: a pixel of the picture has every category of the pixels that it covers.
    Where categories overlap, the one that is smaller in the image is on top.
    """
    small = shrink_mask(mask, fit(mask.shape, side))
    thickness = 1 if max(small.shape) < 300 else 2
    planes = {bit: np.uint8((small & bit) != 0) for bit in COLORS}
    order = sorted(COLORS, key=lambda bit: (-int(planes[bit].sum()), bit))
    levels = np.zeros_like(small)
    for bit in order:
        levels[planes[bit] != 0] = 1 + list(COLORS).index(bit)
    for bit in order:
        # the region without its rim; the picture's own border is no rim
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        rim = planes[bit] - cv2.erode(planes[bit], cross, iterations=thickness)
        levels[rim != 0] = 1 + len(COLORS) + list(COLORS).index(bit)
    colors = np.array([(0, 0, 0), *COLORS.values(), *COLORS.values()], np.uint8)
    alpha = np.array([0] + [_FILL_ALPHA] * len(COLORS) + [255] * len(COLORS), np.uint8)
    return _palette_uri(levels, colors, alpha)


def shrink_mask(mask: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Shrink a (H, W) bit field; each new pixel has the union of the bits that it covers."""
    for axis, side in enumerate(size):
        starts = np.arange(side) * mask.shape[axis] // side
        mask = np.bitwise_or.reduceat(mask, starts, axis=axis)
    return mask


def _palette_uri(levels: UInt8Array, colors: UInt8Array, alpha: UInt8Array) -> str:
    """PNG of (H, W) indices into (N, 3) colours with (N,) opacities."""
    image = Image.frombytes("P", levels.shape[::-1], levels.tobytes())
    image.putpalette(colors.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True, transparency=alpha.tobytes())
    return _uri("png", buffer)


def _uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
