"""Does a map depend on what the model has learnt? The randomised-weights check.

Adebayo et al. 2018: explain the same image with the same method once more, by a model whose
weights mean nothing. A map that stays the same shows the image, not the model.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from artifactnet.explanation.detector import Detector


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
