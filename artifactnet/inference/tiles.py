"""Large images at their own resolution: overlapping tiles, blended without seams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from artifactnet.data.geometry import Box, fit_geometry
from artifactnet.data.transforms import Preprocess
from artifactnet.inference.base import MAX_OVERLAP
from artifactnet.inference.forward import forward
from artifactnet.inference.instances import frame_probabilities, restore_planes
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import Float32Array, UInt8Array


def tile_plan(height: int, width: int, tile: tuple[int, int], overlap: float) -> list[Box]:
    """Tiles that cover an image, row by row.

    They are spread evenly: the last one ends at the border, and neighbours overlap by at least
    ``overlap``, to within a pixel. A side shorter than the tile has one tile of its own length.

    Args:
        height, width: of the image, pixels.
        tile: height and width of a tile, pixels.
        overlap: least share of a tile that its neighbour sees too, 0..`MAX_OVERLAP`.

    Raises:
        ValueError: a side below one pixel, or an overlap out of range.
    """
    rows, columns = _starts(height, tile[0], overlap), _starts(width, tile[1], overlap)
    size = min(height, tile[0]), min(width, tile[1])
    return [Box(top, left, *size) for top in rows for left in columns]


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    if length < 1 or tile < 1:
        raise ValueError(f"sides must be at least 1 pixel, got image {length}, tile {tile}")
    if not 0 <= overlap <= MAX_OVERLAP:
        raise ValueError(f"overlap must be in 0..{MAX_OVERLAP}, not {overlap}")
    if length <= tile:
        return [0]
    count = math.ceil((length - tile) / max(1, math.floor(tile * (1 - overlap)))) + 1
    return [round(k * (length - tile) / (count - 1)) for k in range(count)]


def windows(starts: Sequence[int], tile: int, length: int) -> list[Float32Array]:
    """Weights along one axis that sum to 1 at every pixel.

    Each tile fades, where it overlaps its neighbours, along a squared sine (a Hann window's
    flank), but not at the borders of the image.

    Args:
        starts: first pixel of each tile, ascending; neighbours touch or overlap.
        tile: length of every tile, pixels.
        length: of the axis, pixels.

    Returns:
        One (tile,) array of weights in (0, 1] per tile.
    """
    shapes: list[npt.NDArray[np.float64]] = []
    total = np.zeros(length, np.float64)
    for k, start in enumerate(starts):
        shape = np.ones(tile)
        if k > 0:
            shared = starts[k - 1] + tile - start
            shape[:shared] *= _rise(shared)
        if k + 1 < len(starts):
            shared = start + tile - starts[k + 1]
            shape[tile - shared :] *= _rise(shared)[::-1]
        total[start : start + tile] += shape
        shapes.append(shape)
    return [
        (shape / total[start : start + tile]).astype(np.float32)
        for start, shape in zip(starts, shapes, strict=True)
    ]


def _rise(length: int) -> npt.NDArray[np.float64]:
    """From above 0 to below 1, sampled at the pixels' centres."""
    return np.sin(np.pi / 2 * (np.arange(length) + 0.5) / max(length, 1)) ** 2


def tiled_probabilities(
    model: ArtifactNet, preprocess: Preprocess, image: UInt8Array, overlap: float, batch_size: int
) -> Float32Array:
    """Probability of each category at the image's own resolution.

    A tile has the size of the model's frame. An image smaller than the frame is enlarged until it
    touches two borders of the frame, and padded.

    Args:
        model: with a segmentation head.
        preprocess: of the model.
        image: (H, W, 3) uint8.
        overlap: see `tile_plan`.
        batch_size: tiles per forward pass.

    Returns:
        (7, H, W) in [0, 1]: for every pixel the weighted mean over its tiles.

    Raises:
        ArtifactNetError: the model's output is not finite.
        ValueError: ``overlap`` is out of range.
    """
    height, width = image.shape[:2]
    plan = tile_plan(height, width, preprocess.size, overlap)
    tops, lefts = sorted({box.top for box in plan}), sorted({box.left for box in plan})
    rows = dict(zip(tops, windows(tops, plan[0].height, height), strict=True))
    columns = dict(zip(lefts, windows(lefts, plan[0].width, width), strict=True))
    blended = np.zeros((len(CATEGORIES), height, width), np.float32)
    geometry = fit_geometry(plan[0].size, preprocess.size, "pad")  # all tiles have one size
    remaining = iter(plan)
    while boxes := list(islice(remaining, batch_size)):
        frames = [preprocess.place(image[box.slices], geometry) for box in boxes]
        for box, output in zip(boxes, forward(model, frames, segmentation=True), strict=True):
            assert output.segmentation is not None
            framed = frame_probabilities(output.segmentation, preprocess.size)
            weights = rows[box.top][:, None] * columns[box.left]
            for plane, into in zip(restore_planes(framed, geometry), blended, strict=True):
                into[box.slices] += weights * plane
    return np.minimum(blended, 1, out=blended)  # rounding
