"""Is a map faithful to the model? Deletion and insertion curves (Petsiuk et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from artifactnet.explanation.detector import Detector, preprocess_for
from artifactnet.models.state import undisturbed
from artifactnet.types import ArtifactNetError, UInt8Array

_BLUR_SIDE = 224  # the blur is made at this long side, so that it is as strong at every size
_BLUR_SIGMA = 11.0  # pixels of that; nothing finer than a tenth of the image survives


@dataclass(frozen=True, slots=True)
class Curves:
    """Probability of fake after each share of the pixels, 0 to 1 in equal steps."""

    deletion: tuple[float, ...]  # from the image to its mean color
    insertion: tuple[float, ...]  # from the blurred image to the image
    deletion_area: float  # under the curve, in [0, 1]; lower is better
    insertion_area: float  # in [0, 1]; higher is better


def faithfulness(
    detector: Detector,
    pixels: UInt8Array,
    heatmap: npt.NDArray[Any],
    *,
    steps: int = 20,
    batch_size: int = 8,
    seed: int = 0,
) -> Curves:
    """Deletion and insertion curve of one map.

    Pixels change in the image at its own size, before the detector's preprocessing: a deleted
    pixel gets the image's mean color, an inserted one replaces that of a strongly blurred image.
    Equal values of the map are ordered at random, identically for every map of one size, so that
    a constant map is a random order and not one from top to bottom.

    Args:
        detector: its state is restored.
        pixels: (H, W, 3) image.
        heatmap: (H, W), finite; the largest values come first.
        steps: number of equal shares.
        batch_size: pictures per forward pass.
        seed: of the order of equal values.

    Raises:
        ValueError: the map and the image differ in size, or a number is below 1.
        ArtifactNetError: a map or output that is not finite, or an image that is too small.
    """
    if heatmap.shape != pixels.shape[:2]:
        raise ValueError(f"the heatmap is {heatmap.shape}, the image {pixels.shape[:2]}")
    if steps < 1 or batch_size < 1:
        raise ValueError(f"steps and batch_size must be 1 or more, not {steps}, {batch_size}")
    if not np.isfinite(heatmap).all():
        raise ArtifactNetError("the heatmap holds values that are not finite")
    order = pixel_order(heatmap, seed)
    mean = np.rint(pixels.reshape(-1, 3).mean(axis=0)).astype(np.uint8)
    pictures = _exchange(pixels, np.broadcast_to(mean, pixels.shape), order, steps)
    deletion = _probabilities(detector, pictures, batch_size)
    # Step 0 of the deletion and the end of the insertion are the same picture.
    pictures = islice(_exchange(blurred(pixels), pixels, order, steps), steps)
    insertion = [*_probabilities(detector, pictures, batch_size), deletion[0]]
    return Curves(tuple(deletion), tuple(insertion), _area(deletion), _area(insertion))


def pixel_order(heatmap: npt.NDArray[Any], seed: int = 0) -> npt.NDArray[np.intp]:
    """Flat positions of the pixels of a (H, W) map, largest value first, ties in random order."""
    shuffled = np.random.default_rng(seed).permutation(heatmap.size)
    order: npt.NDArray[np.intp] = shuffled[
        np.argsort(-heatmap.ravel()[shuffled].astype(np.float64), kind="stable")
    ]
    return order


def blurred(pixels: UInt8Array) -> UInt8Array:
    """The (H, W, 3) image without details finer than about a tenth of its long side."""
    height, width = pixels.shape[:2]
    scale = min(1.0, _BLUR_SIDE / max(height, width))  # else the kernel is as large as the image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small: Any = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    sigma = _BLUR_SIGMA * max(size) / _BLUR_SIDE
    small = cv2.GaussianBlur(small, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    full: UInt8Array = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return full


def _exchange(
    start: UInt8Array, end: UInt8Array, order: npt.NDArray[np.intp], steps: int
) -> Iterator[UInt8Array]:
    """``steps + 1`` pictures from ``start`` to ``end``; all of them are one array that changes."""
    picture = start.copy()
    into, source = picture.reshape(-1, 3), end.reshape(-1, 3)
    yield picture
    limits = [len(order) * step // steps for step in range(steps + 1)]
    for low, high in pairwise(limits):
        chosen = order[low:high]
        into[chosen] = source[chosen]
        yield picture


def _probabilities(
    detector: Detector, pictures: Iterator[UInt8Array], batch_size: int
) -> list[float]:
    device = next((weight.device for weight in detector.module.parameters()), None)
    frames = (preprocess_for(detector, picture).image(picture)[0] for picture in pictures)
    probabilities: list[float] = []
    with undisturbed(detector.module), torch.no_grad():
        while few := list(islice(frames, batch_size)):
            logits = detector.logits(torch.stack(few).to(device))
            probabilities += logits.double().sigmoid().cpu().tolist()
    if not np.isfinite(probabilities).all():
        raise ArtifactNetError("the model's answer is not a number (NaN)")
    return probabilities


def _area(curve: list[float]) -> float:
    """Trapezoids over [0, 1]."""
    return (sum(curve) - (curve[0] + curve[-1]) / 2) / (len(curve) - 1)
