"""High and cognitive level: parts twice, mirrored or gone; impossible scales, places and light."""

from __future__ import annotations

import cv2
import numpy as np

from artifactnet.data.synthetic.edits.blend import Proposal
from artifactnet.data.synthetic.edits.regions import (
    BoolArray,
    blob,
    bounds,
    cut_out,
    feather,
    outline,
    pixels,
    place,
    random_point,
    random_share,
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


# Cognitive level: things at an impossible scale or place, light that contradicts itself.


def _paste(
    image: UInt8Array, part: BoolArray, rng: np.random.Generator, scale: float, turn: float
) -> Proposal:
    """The part, scaled and turned (degrees), at the emptiest of four random places."""
    height, width = image.shape[:2]
    top, bottom, left, right = bounds(part)
    middle = ((left + right) / 2, (top + bottom) / 2)
    reach = scale * np.array([right - left, bottom - top]) / 2
    low = np.minimum(reach, (width / 2, height / 2))
    high = np.maximum((width, height) - reach, (width / 2, height / 2))
    spots = rng.uniform(low, high, (4, 2))
    x, y = spots[np.argmax(np.abs(spots - middle).sum(axis=1))]  # far from where it belongs
    matrix = cv2.getRotationMatrix2D(middle, turn, scale)
    matrix[:, 2] += (x - middle[0], y - middle[1])
    moved = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
    )
    shown = cv2.warpAffine(part.astype(np.uint8), matrix, (width, height)) > 0
    alpha = feather(shown, 0.7 * unit(image))
    return Proposal(cut_out(moved, alpha), alpha, gap=9)


def giant(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """Something from the picture again, much too large."""
    part = segment(image, rng)
    scale = float(rng.uniform(1.6, 2.0) + 0.5 * severity)
    largest = float(np.sqrt(0.2 / part.mean()))
    if largest < 1.3:  # too large already: a piece of it
        part = blob(image, rng, share=0.05)
        largest = 2.0
    return _paste(image, part, rng, min(scale, largest), float(rng.uniform(-30, 30)))


def tiny(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """Most of the scene as a toy inside itself."""
    part = blob(image, rng, share=float(rng.uniform(0.4, 0.6)))
    return _paste(image, part, rng, 0.48 - 0.16 * severity, float(rng.uniform(-25, 25)))


def misplaced(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """Something upside down where it cannot be."""
    part = segment(image, rng)
    turn = float(rng.uniform(110, 250))
    return _paste(image, part, rng, float(rng.uniform(0.8, 1.0)) + 0.15 * severity, turn)


def shadow(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """A cast shadow that nothing throws; in the dark, a pool of light instead."""
    height, width = image.shape[:2]
    curve = outline(rng, random_share(rng) * height * width)
    stretch = rng.uniform(1.3, 1.8)
    curve = curve * (stretch, 1 / stretch)
    turn = rng.uniform(0, np.pi)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    region = place(curve @ rotation, random_point(image, rng), (height, width))
    level = image[region].mean() if region.any() else 0.0
    if level > 70:
        edited = image * np.array([0.5, 0.52, 0.58]) * (1.15 - 0.45 * severity)
    else:
        edited = image * 1.2 + np.array([120, 112, 95]) * (0.5 + 0.5 * severity)
    soft = feather(region, (1 + 1.5 * rng.random()) * unit(image))
    return Proposal(edited.clip(0, 255).astype(np.uint8), soft)


def reflection(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """A glossy reflection of the wrong part of the scene, in the wrong direction."""
    region = blob(image, rng, busy=False)
    height, width = image.shape[:2]
    turned = image[::-1, ::-1] if rng.integers(2) else image[::-1]
    shift = rng.integers(0, (height, width))
    turned = np.roll(turned, tuple(int(v) for v in shift), axis=(0, 1))
    rows = np.arange(height, dtype=np.float32)[:, None]
    waves = 2.0 * unit(image) * np.sin(2 * np.pi * rows / (9 * unit(image)))
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), rows[:, 0])
    wavy = cv2.remap(
        np.ascontiguousarray(turned), x + waves, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    opacity = 0.55 + 0.35 * severity
    gloss = wavy.astype(np.float32) * 0.8 + 50
    edited = image + opacity * (gloss - image)
    return Proposal(edited.clip(0, 255).astype(np.uint8), feather(region, 1.2 * unit(image)))
