"""Low level, textures: surfaces that are too smooth, repeated, scrambled or patterned."""

from __future__ import annotations

import cv2
import numpy as np

from artifactnet.data.synthetic.edits.blend import Proposal
from artifactnet.data.synthetic.edits.regions import blob, bounds, feather, pixels, unit
from artifactnet.types import UInt8Array


def oversmooth(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """Detail melts into a waxy surface."""
    region = blob(image, rng)
    edited = cv2.GaussianBlur(image, (0, 0), (3 + 4 * severity) * unit(image))
    return Proposal(np.asarray(edited, np.uint8), feather(region, 1.5 * unit(image)), gap=9)


def mush(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """A low-resolution patch, enlarged and sharpened: soft blocks with halos."""
    region = blob(image, rng)
    height, width = image.shape[:2]
    factor = pixels(image, 5 + 5 * severity, least=2)
    shape = (max(2, width // factor), max(2, height // factor))
    small = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    soft = cv2.GaussianBlur(large, (0, 0), 0.2 * factor)
    edited = cv2.addWeighted(soft, 1.8, cv2.GaussianBlur(soft, (0, 0), factor), -0.8, 0)
    return Proposal(np.asarray(edited, np.uint8), feather(region, unit(image)), gap=9)


def tile(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """One small patch repeated again and again."""
    region = blob(image, rng)
    height, width = image.shape[:2]
    side = min(pixels(image, rng.uniform(22, 28) - 10 * severity, least=4), height, width)
    top, bottom, left, right = bounds(region)
    y = min((top + bottom) // 2, height - side)
    x = min((left + right) // 2, width - side)
    patch = image[y : y + side, x : x + side]
    repeats = (-(-height // side), -(-width // side), 1)
    edited = np.ascontiguousarray(np.tile(patch, repeats)[:height, :width])
    return Proposal(edited, feather(region, 0.8 * unit(image)), gap=9)


def scramble(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """Little blocks of the surface in the wrong order."""
    region = blob(image, rng)
    side = pixels(image, rng.uniform(12, 16) - 6 * severity, least=3)
    top, bottom, left, right = bounds(region)
    rows, columns = max(1, (bottom - top) // side), max(1, (right - left) // side)
    spots = [(top + r * side, left + c * side) for r in range(rows) for c in range(columns)]
    edited = image.copy()
    for (y, x), source in zip(spots, rng.permutation(len(spots)), strict=True):
        from_y, from_x = spots[source]
        block = image[from_y : from_y + side, from_x : from_x + side]
        target = edited[y : y + side, x : x + side]
        target[:] = block[: target.shape[0], : target.shape[1]]
    return Proposal(edited, feather(region, 0.8 * unit(image)), gap=9)


def checkerboard(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """The lattice that upsampling layers leave behind; visible on plain surfaces, too."""
    region = blob(image, rng, busy=False)
    height, width = image.shape[:2]
    period = 2 * np.pi / (rng.uniform(4, 8) * unit(image))
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    turn = rng.uniform(0, np.pi / 2)
    along = np.cos(turn) * x + np.sin(turn) * y
    across = np.cos(turn) * y - np.sin(turn) * x
    wave = np.sin(period * along) * np.sin(period * across)
    amplitude = 35 + 45 * severity
    edited = np.clip(image + amplitude * wave[..., None], 0, 255).astype(np.uint8)
    return Proposal(edited, feather(region, 1.5 * unit(image)), gap=9)
