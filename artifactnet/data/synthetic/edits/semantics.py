"""High level, semantics: parts that are there twice, mirrored, or gone."""

from __future__ import annotations

import cv2
import numpy as np

from artifactnet.data.synthetic.edits.blend import Proposal
from artifactnet.data.synthetic.edits.regions import (
    blob,
    bounds,
    cut_out,
    feather,
    pixels,
    segment,
    unit,
)
from artifactnet.types import UInt8Array


def duplicate(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """A part repeated two or three times in a row, like extra fingers or extra wheels."""
    part = blob(image, rng, share=float(rng.uniform(0.03, 0.06)))
    top, bottom, left, right = bounds(part)
    span = np.array([right - left, bottom - top])
    height, width = image.shape[:2]
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    to_center = np.array([width / 2, height / 2]) - middle
    direction = to_center + rng.normal(0, 0.25 * min(height, width), 2)
    direction /= max(float(np.hypot(*direction)), 1e-6)
    # The step is where copies just touch: the box's half widths seen along the direction.
    step = direction * (0.6 + 0.3 * severity) * float(np.abs(direction) @ span)
    edited = image.copy()
    alpha = np.zeros((height, width), np.float32)
    soft = feather(part, 0.8 * unit(image))
    for copy in range(1, int(rng.integers(2, 4)) + 1):
        move = np.array([[1, 0, copy * step[0]], [0, 1, copy * step[1]]], np.float32)
        moved = cv2.warpAffine(image, move, (width, height), borderMode=cv2.BORDER_REFLECT)
        shown = np.asarray(cv2.warpAffine(soft, move, (width, height)), np.float32)
        edited = np.where(shown[..., None] > alpha[..., None], cut_out(moved, shown), edited)
        alpha = np.maximum(alpha, shown)
    return Proposal(edited, alpha, gap=9)


def mirror(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """One half of a part appears again as its other half: two heads, no tail."""
    region = blob(image, rng, share=float(rng.uniform(0.06, 0.10 + 0.08 * severity)))
    top, bottom, left, right = bounds(region)
    edited = image.copy()
    box = edited[top:bottom, left:right]
    if rng.integers(2):
        half = box.shape[1] // 2
        box[:, box.shape[1] - half :] = box[:, :half][:, ::-1]
    else:
        half = box.shape[0] // 2
        box[box.shape[0] - half :] = box[:half][::-1]
    return Proposal(edited, feather(region, 0.7 * unit(image)), gap=9)


def remove(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """A part is gone, painted over from its surroundings (at a third of the size, so: mushy)."""
    region = segment(image, rng)
    height, width = image.shape[:2]
    grow = pixels(image, 2 + 3 * severity)
    region = cv2.dilate(region.astype(np.uint8), np.ones((2 * grow + 1,) * 2, np.uint8)) > 0
    shape = (max(8, round(width / (3 * unit(image)))), max(8, round(height / (3 * unit(image)))))
    small = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    hole = cv2.resize(region.astype(np.uint8), shape, interpolation=cv2.INTER_AREA)
    hole = cv2.dilate(hole, np.ones((3, 3), np.uint8))
    painted = cv2.inpaint(small, hole, 3, cv2.INPAINT_TELEA)
    edited = cv2.resize(painted, (width, height), interpolation=cv2.INTER_CUBIC)
    return Proposal(np.asarray(edited, np.uint8), feather(region, unit(image)), gap=9)
