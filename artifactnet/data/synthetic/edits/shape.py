"""Low level, edges and shapes: contours that wobble, twist or break."""

from __future__ import annotations

import cv2
import numpy as np

from artifactnet.data.synthetic.edits.blend import Proposal
from artifactnet.data.synthetic.edits.regions import BoolArray, blob, bounds, feather, pixels, unit
from artifactnet.types import Float32Array, UInt8Array


def _warp(image: UInt8Array, region: BoolArray, dx: Float32Array, dy: Float32Array) -> Proposal:
    """Pixels move by (dx, dy) inside the region; the motion fades out at its border."""
    window = feather(region, 2.5 * unit(image))
    window[window < 0.02] = 0.0
    height, width = image.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    edited = cv2.remap(
        image, x + dx * window, y + dy * window, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return Proposal(np.asarray(edited, np.uint8), (window > 0).astype(np.float32), gap=13)


def swirl(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """The region is twisted around its centre."""
    region = blob(image, rng)
    top, bottom, left, right = bounds(region)
    height, width = image.shape[:2]
    x = np.arange(width, dtype=np.float32)[None, :] - (left + right) / 2
    y = np.arange(height, dtype=np.float32)[:, None] - (top + bottom) / 2
    radius = np.hypot(x, y) / (max(bottom - top, right - left) / 2)
    turn = (1.5 + 1.8 * severity) * rng.choice((-1.0, 1.0)) * np.clip(1.2 - radius, 0, 1)
    dx = x * np.cos(turn) - y * np.sin(turn) - x
    dy = x * np.sin(turn) + y * np.cos(turn) - y
    return _warp(image, region, dx.astype(np.float32), dy.astype(np.float32))


def ripple(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """Straight edges become wavy."""
    region = blob(image, rng)
    scale = unit(image)
    height, width = image.shape[:2]
    length = rng.uniform(11, 22) * scale
    amplitude = (3 + 4 * severity) * scale
    phase = rng.uniform(0, 2 * np.pi, 2)
    along_y = np.sin(2 * np.pi * np.arange(height, dtype=np.float32) / length + phase[0])
    along_x = np.sin(2 * np.pi * np.arange(width, dtype=np.float32) / length + phase[1])
    dx = np.repeat(amplitude * along_y[:, None], width, axis=1)
    dy = np.repeat(amplitude * along_x[None, :], height, axis=0)
    return _warp(image, region, dx.astype(np.float32), dy.astype(np.float32))


def melt(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """A smooth random warp: shapes lose their form."""
    region = blob(image, rng)
    height, width = image.shape[:2]
    cells = int(rng.integers(8, 14))
    noise = rng.standard_normal((2, cells, cells)).astype(np.float32)
    amount = (6 + 6 * severity) * unit(image)
    dx, dy = (
        amount * cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
        for field in noise
    )
    return _warp(image, region, dx, dy)


def strips(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """Edges break: neighbouring strips slide apart."""
    region = blob(image, rng)
    upright = bool(rng.integers(2))
    source = image.transpose(1, 0, 2) if upright else image
    edited = source.copy()
    width = pixels(image, rng.uniform(5, 10), least=2)
    for row, start in enumerate(range(0, source.shape[0], width)):
        shift = pixels(image, rng.uniform(4, 8) + 8 * severity) * (1 if row % 2 else -1)
        edited[start : start + width] = np.roll(source[start : start + width], shift, axis=1)
    if upright:
        edited = np.ascontiguousarray(edited.transpose(1, 0, 2))
    return Proposal(edited, feather(region, 0.7 * unit(image)), gap=13)
