"""Sliding-patch maps: each patch of an image is predicted as an image (X-AIGD Sec. 6.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from artifactnet.data.geometry import Box
from artifactnet.explanation.detector import Detector, preprocess_for, reference_weight
from artifactnet.models.state import undisturbed
from artifactnet.types import ArtifactNetError, Float32Array, UInt8Array


def sliding_map(
    detector: Detector,
    pixels: UInt8Array,
    window: int = 224,
    stride: int = 224,
    batch_size: int = 8,
) -> Float32Array:
    """Probability of being fake of every pixel, predicted from the windows that contain it.

    Windows start every ``stride`` pixels; the last one of a row or column is moved back to end
    at the border, so that every pixel is covered. Along a side shorter than the window there is
    one window, as long as the side. To the detector each window is an image.

    Args:
        detector: its state is restored.
        pixels: (H0, W0, 3) sRGB of the original image.
        window: side of a window, pixels of the original.
        stride: from one window to the next, pixels; at most ``window``.
        batch_size: windows per forward pass.

    Returns:
        (H0, W0) in [0, 1]: of each pixel the mean over the windows that see it.

    Raises:
        ArtifactNetError: an option is out of range, a window is too small for the detector, or
            a logit is not a number.
    """
    check_windows(window, stride, batch_size)
    height, width = pixels.shape[:2]
    tops, lefts = _starts(height, window, stride), _starts(width, window, stride)
    tall, wide = min(window, height), min(window, width)
    boxes = [Box(top, left, tall, wide) for top in tops for left in lefts]
    values = np.concatenate(list(_probabilities(detector, pixels, boxes, batch_size)))
    sides, rows = _shares(tops, tall)
    lengths, columns = _shares(lefts, wide)
    # windows in rows and columns: the mean over them is the mean over columns of that over rows
    cells = rows @ values.reshape(len(tops), len(lefts)) @ columns.T
    return cells.astype(np.float32).repeat(sides, axis=0).repeat(lengths, axis=1)


def check_windows(window: int, stride: int, batch_size: int) -> None:
    """Raise an `ArtifactNetError` for an option below 1 or a stride that leaves out pixels."""
    for name, value in (("window", window), ("stride", stride), ("batch_size", batch_size)):
        if value < 1:
            raise ArtifactNetError(f"sliding patches: {name} must be 1 or more, not {value}")
    if stride > window:
        raise ArtifactNetError(
            f"sliding patches: a stride of {stride} leaves out pixels between windows of "
            f"{window}; choose a stride of at most {window}"
        )


def _starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along a side, ascending."""
    last = max(0, length - window)
    return [*range(0, last, stride), last]


def _shares(
    starts: Sequence[int], window: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """A side cut wherever a window begins or ends: the pixels in each piece.

    And (pieces, windows): 1 / n for each of the n windows that see the piece, else 0.
    """
    first = np.asarray(starts)
    edges = np.unique(np.concatenate([first, first + window]))
    piece = edges[:-1, None]
    sees = (first <= piece) & (piece < first + window)
    return np.diff(edges), sees / sees.sum(axis=1, keepdims=True)


def _probabilities(
    detector: Detector, pixels: UInt8Array, boxes: Sequence[Box], batch_size: int
) -> Iterator[npt.NDArray[np.float64]]:
    weight = reference_weight(detector)
    remaining = iter(boxes)
    while few := list(islice(remaining, batch_size)):
        with torch.inference_mode(False), torch.no_grad(), undisturbed(detector.module):
            windows = [pixels[box.slices] for box in few]
            frames = [preprocess_for(detector, window).image(window)[0] for window in windows]
            logits = detector.logits(torch.stack(frames).to(weight)).double().cpu()
        for box, logit in zip(few, logits, strict=True):
            if not bool(logit.isfinite()):
                raise ArtifactNetError(
                    f"sliding patches: the model's answer to the window at row {box.top}, "
                    f"column {box.left} is not a number (NaN)"
                )
        yield logits.sigmoid().numpy()
