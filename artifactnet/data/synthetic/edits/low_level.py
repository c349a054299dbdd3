"""Low level: surfaces, edges and shapes, symbols and colours that no photograph has."""

from __future__ import annotations

import cv2
import numpy as np

from artifactnet.data.synthetic.edits.blend import Proposal
from artifactnet.data.synthetic.edits.regions import (
    BoolArray,
    blob,
    bounds,
    feather,
    pixels,
    place,
    random_point,
    random_share,
    unit,
)
from artifactnet.types import Float32Array, UInt8Array

_CELL = 32  # side of a glyph's cell on the drawing board
_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZaeghkmnqrst23456789"
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX)

# Textures that are too smooth, repeated, scrambled or patterned.


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


# Edges and shapes that wobble, twist or break.


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


# Symbols: text that is no text.


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
    return _bend_letters(board, rng) if letters else board


def _bend_letters(board: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Bend true letters until they cannot be read."""
    height, width = board.shape
    shape = (max(2, height // 16), max(2, width // 16))
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    noise = (rng.normal(0, 5, shape).astype(np.float32) for _ in range(2))
    dx, dy = (cv2.resize(v, (width, height), interpolation=cv2.INTER_CUBIC) for v in noise)
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


# Colours that are wrong, bleed, or lie in blotches.


def hue(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """The region has a hue it cannot have; gray surfaces gain one."""
    region = blob(image, rng, busy=False)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int32)
    hsv[..., 0] = (hsv[..., 0] + int(rng.integers(30, 150))) % 180  # OpenCV: 180 is a full turn
    hsv[..., 1] = np.maximum(hsv[..., 1], int(90 + 90 * severity))
    hsv[..., 2] = np.maximum(hsv[..., 2], 60)  # hue cannot be seen in black
    edited = cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
    return Proposal(np.asarray(edited, np.uint8), feather(region, 1.5 * unit(image)))


def bleed(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """Colour runs over the contours it belongs to: chroma displaced, blurred, exaggerated."""
    region = blob(image, rng)
    scale = unit(image)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    angle = rng.uniform(0, 2 * np.pi)
    distance = (12 + 14 * severity) * scale
    move = np.array(
        [[1, 0, distance * np.cos(angle)], [0, 1, distance * np.sin(angle)]], np.float32
    )
    height, width = image.shape[:2]
    chroma = cv2.warpAffine(lab[..., 1:], move, (width, height), borderMode=cv2.BORDER_REFLECT)
    chroma = cv2.GaussianBlur(chroma, (0, 0), 3 * scale).astype(np.float32) - 128
    boost = (2 + 2 * severity) * chroma
    lab[..., 1:] = np.clip(128 + boost, 0, 255).astype(np.uint8)
    edited = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    return Proposal(np.asarray(edited, np.uint8), feather(region, 2 * scale))


def blotch(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """A cloud of one saturated colour lies over the region."""
    region = blob(image, rng, busy=False)
    tint = np.zeros((1, 1, 3), np.uint8)
    tint[0, 0] = [int(rng.integers(*limits)) for limits in ((0, 180), (190, 256), (150, 256))]
    color = cv2.cvtColor(tint, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
    opacity = 0.35 + 0.35 * severity
    edited = image + opacity * (color - image.astype(np.float32))
    return Proposal(edited.clip(0, 255).astype(np.uint8), feather(region, 2.5 * unit(image)))
