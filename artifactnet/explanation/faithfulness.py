"""Does a map depend on what the model has learnt? The randomised-weights check.

Adebayo et al. 2018: explain the same image with the same method once more, by a model whose
weights mean nothing. A map that stays the same shows the image, not the model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from artifactnet.explanation.detector import Detector, preprocess_for
from artifactnet.models.state import undisturbed
from artifactnet.types import ArtifactNetError, UInt8Array

_BLUR_SIDE = 224  # the blur is made at this long side, so that it is as strong at every size
_BLUR_SIGMA = 11.0  # pixels of that; nothing finer than a tenth of the image survives


@dataclass(frozen=True, slots=True)
class Curves:
    """Probability of fake after each share of the pixels, 0 to 1 in equal steps.

    Attributes:
        deletion: from the image to its mean colour; the first is that of the image itself.
        insertion: from the blurred image to the image; the last is that of the image itself.
        deletion_area: area under ``deletion`` by trapezoids, in [0, 1]; small is good.
        insertion_area: area under ``insertion``, in [0, 1]; large is good.
    """

    deletion: tuple[float, ...]
    insertion: tuple[float, ...]
    deletion_area: float
    insertion_area: float


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

    Pixels are changed in the image at its own size, before the detector's preprocessing: a
    deleted one gets the image's mean colour, an inserted one takes the place of a strongly blurred
    one. Equal values of the map follow one another in a random order, the same for every map of
    one size, so that a constant map is a random order and not one from top to bottom.

    Args:
        detector: runs on its own device; its state is left as it was found.
        pixels: (H, W, 3) image.
        heatmap: (H, W), finite; the largest values come first.
        steps: number of equal shares.
        batch_size: pictures that pass through the model together.
        seed: of the order of equal values.

    Raises:
        ValueError: the map is not of the image's size, or a number below 1.
        ArtifactNetError: a map or an answer that is not finite, or an image that the detector
            cannot take.
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
    """Flat positions of the pixels, the largest value first, equal values in a random order.

    Args:
        heatmap: (H, W).
        seed: of that order, which is the same for every map of one size.
    """
    shuffled = np.random.default_rng(seed).permutation(heatmap.size)
    order: npt.NDArray[np.intp] = shuffled[
        np.argsort(-heatmap.ravel()[shuffled].astype(np.float64), kind="stable")
    ]
    return order


def blurred(pixels: UInt8Array) -> UInt8Array:
    """The image without anything finer than about a tenth of its long side.

    Args:
        pixels: (H, W, 3).
    """
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
    """``start``, then with ever more of its pixels those of ``end``: ``steps + 1`` pictures.

    It is one picture that changes; whoever wants to keep one copies it.
    """
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
    found: list[float] = []
    with undisturbed(detector.module), torch.no_grad():
        while few := list(islice(frames, batch_size)):
            logits = detector.logits(torch.stack(few).to(device))
            found += logits.double().sigmoid().cpu().tolist()
    if not np.isfinite(found).all():
        raise ArtifactNetError("the model's answer is not a number (NaN)")
    return found


def _area(curve: list[float]) -> float:
    """By trapezoids over [0, 1]."""
    return (sum(curve) - (curve[0] + curve[-1]) / 2) / (len(curve) - 1)


def randomized(detector: Detector, seed: int = 0) -> Detector:
    """A detector of the same form whose weights mean nothing.

    A deep copy in which the values of every floating-point parameter are shuffled within it: each
    keeps its distribution, so that activations stay of the size that the layers are made for, but
    nothing of what was learnt. Shuffling leaves alone what has one value: parameters with a single
    element (say, the bias of the one logit) or whose elements are all equal (say, the scale of a
    norm that was never trained). Buffers, among them the statistics of batch norms, are kept.

    Args:
        detector: left unchanged.
        seed: of the shuffling; the same on every device.
    """
    shuffled = copy.deepcopy(detector)
    shuffle(shuffled.module, seed)
    return shuffled


def shuffle(module: nn.Module, seed: int = 0) -> None:
    """Shuffle the values of every floating-point parameter within it, in place.

    Args:
        module: a parameter that it holds twice is shuffled once.
        seed: of the shuffling; the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.is_floating_point() and weight.numel() > 1:
                order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
                weight.copy_(weight.flatten()[order].view_as(weight))


def rank_correlation(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float | None:
    """Spearman's rank correlation of two maps; equal values share their mean rank.

    Args:
        first: (h, w), finite.
        second: (h, w), finite.

    Returns:
        A number in [-1, 1]: near 1, the second map ranks the pixels as the first does. None where
        a map is constant: it ranks nothing.

    Raises:
        ValueError: shapes differ, or values that are not finite.
    """
    if first.shape != second.shape:
        raise ValueError(f"maps of one size are needed, got {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a map holds values that are not finite")
    ranks = [_ranks(values) for values in (first, second)]
    a, b = (rank - rank.mean() for rank in ranks)
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / scale, -1.0, 1.0)) if scale else None


def _ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(n,) ranks from 1; equal values have the mean of theirs."""
    _, group, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: npt.NDArray[np.float64] = last - (counts - 1) / 2
    return means[group.ravel()]
