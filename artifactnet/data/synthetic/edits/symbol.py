"""Low level, symbols: text that is no text."""

from __future__ import annotations

import cv2
import numpy as np

from artifactnet.data.synthetic.edits.blend import Proposal
from artifactnet.data.synthetic.edits.regions import bounds, place, random_point, random_share
from artifactnet.types import Float32Array, UInt8Array

_CELL = 32  # side of a glyph's cell on the drawing board
_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZaeghkmnqrst23456789"
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX)


def _stroke_glyph(board: UInt8Array, x: int, y: int, rng: np.random.Generator) -> None:
    """Two to four random strokes in the cell at (x, y): looks like a letter, is none."""
    spots = np.array([(4, 4), (14, 4), (24, 4), (4, 16), (24, 16), (4, 28), (14, 28), (24, 28)])
    thickness = int(rng.integers(3, 5))
    for _ in range(int(rng.integers(2, 5))):
        a, b = (spots[i] + (x, y) for i in rng.choice(len(spots), 2, replace=False))
        if rng.random() < 0.35:
            center = ((a + b) // 2).tolist()
            axes = (int(rng.integers(4, 11)), int(rng.integers(5, 12)))
            sweep = int(rng.integers(140, 330))
            start = int(rng.integers(0, 360))
            cv2.ellipse(board, center, axes, 0, start, start + sweep, 255, thickness, cv2.LINE_AA)
        else:
            cv2.line(board, a.tolist(), b.tolist(), 255, thickness, cv2.LINE_AA)


def _board(rng: np.random.Generator, letters: bool) -> UInt8Array:
    """Drawing board with one to three lines of glyphs, ink 255 on 0."""
    rows, columns = int(rng.integers(1, 4)), int(rng.integers(4, 8))
    board = np.zeros((rows * (_CELL + 8) + 8, columns * _CELL + 8), np.uint8)
    font = int(rng.choice(_FONTS))
    for row in range(rows):
        for column in range(columns):
            if 0 < column < columns - 1 and rng.random() < 0.1:
                continue  # a gap between words
            x, y = 4 + column * _CELL, 8 + row * (_CELL + 8)
            if letters:
                letter = _LETTERS[int(rng.integers(len(_LETTERS)))]
                cv2.putText(board, letter, (x + 3, y + 27), font, 1.1, 255, 3, cv2.LINE_AA)
            else:
                _stroke_glyph(board, x, y, rng)
    return _melt(board, rng) if letters else board


def _melt(board: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Bend true letters until they cannot be read."""
    height, width = board.shape
    shape = (max(2, height // 16), max(2, width // 16))
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    dx, dy = (
        cv2.resize(
            rng.normal(0, 5, shape).astype(np.float32),
            (width, height),
            interpolation=cv2.INTER_CUBIC,
        )
        for _ in range(2)
    )
    return np.asarray(cv2.remap(board, x + dx, y + dy, cv2.INTER_LINEAR), np.uint8)


def _quad(image: UInt8Array, board: UInt8Array, rng: np.random.Generator) -> Float32Array:
    """Corners (4, 2) of the board in the image: turned, skewed, inside the borders."""
    height, width = image.shape[:2]
    aspect = min(board.shape[1] / board.shape[0], 4.0)
    area = random_share(rng) * height * width
    half_w, half_h = np.sqrt(area * aspect) / 2, np.sqrt(area / aspect) / 2
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (half_w, half_h)
    corners = corners * rng.uniform(0.85, 1.1, (4, 2))
    turn = rng.uniform(-0.45, 0.45)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = corners @ rotation
    span = corners.max(0) - corners.min(0)
    corners *= min(1.0, 0.94 * width / span[0], 0.94 * height / span[1])
    top, bottom, left, right = bounds(place(corners, random_point(image, rng), (height, width)))
    center = np.array([(left + right) / 2, (top + bottom) / 2])
    middle = (corners.max(0) + corners.min(0)) / 2
    return (corners - middle + center).astype(np.float32)


def _write(image: UInt8Array, rng: np.random.Generator, severity: float, letters: bool) -> Proposal:
    board = _board(rng, letters)
    height, width = image.shape[:2]
    quad = _quad(image, board, rng)
    rows, columns = board.shape
    source = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], np.float32)
    matrix = cv2.getPerspectiveTransform(source, quad)
    ink = cv2.warpPerspective(board, matrix, (width, height), flags=cv2.INTER_AREA)
    ink = ink.astype(np.float32) / 255
    plate = np.zeros((height, width), np.float32)
    cv2.fillConvexPoly(plate, np.round(quad).astype(np.int32), 1.0)
    behind = image[plate > 0].mean(axis=0) if plate.any() else np.full(3, 128.0)
    dark = behind.mean() < 128
    ink_color = rng.uniform(190, 255, 3) if dark else rng.uniform(0, 70, 3)
    with_plate = rng.random() < 0.5
    if with_plate:  # a label: its own background, ink in contrast to it
        paper = rng.uniform(190, 250, 3) if dark else rng.uniform(10, 70, 3)
        ink_color = 255 - paper
        edited = image + (0.6 + 0.3 * severity) * plate[..., None] * (paper - image)
    else:
        edited = image.astype(np.float64)
    edited = edited + ink[..., None] * (ink_color - edited)
    alpha = np.maximum(plate, (ink > 0).astype(np.float32))
    # Without a plate only the strokes change, so the gaps between letters are closed widely.
    return Proposal(np.clip(edited, 0, 255).astype(np.uint8), alpha, gap=5 if with_plate else 9)


def pseudo_letters(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """Lines of signs that belong to no alphabet."""
    return _write(image, rng, severity, letters=False)


def melted_letters(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """Latin letters in senseless order, bent out of shape."""
    return _write(image, rng, severity, letters=True)
