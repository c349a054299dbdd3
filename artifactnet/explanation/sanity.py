"""Does a map depend on what the model learned? The randomized-weights check.

Adebayo et al. 2018: explain the same image with the same method by a model with random weights.
A map that stays the same shows the image, not the model.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from artifactnet.explanation.detector import Detector
from artifactnet.metrics.correlation import spearman
from artifactnet.models.state import exclusive


def randomized(detector: Detector, seed: int = 0) -> Detector:
    """A deep copy of a detector with shuffled weights, see `shuffle_weights`."""
    with exclusive(detector.module):  # flags and hooks as they are between two uses
        shuffled = copy.deepcopy(detector)
    shuffle_weights(shuffled.module, seed)
    return shuffled


def shuffle_weights(module: nn.Module, seed: int = 0) -> None:
    """Shuffle the values within every floating-point parameter, in place.

    Each keeps its distribution, so that activations keep their usual size. Parameters with a single
    value (the bias of the one logit) and buffers (statistics of batch norms) stay as they are.

    Args:
        module: a parameter that it holds twice is shuffled once.
        seed: of the shuffling; gives the same weights on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.is_floating_point() and weight.numel() > 1:
                order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
                weight.copy_(weight.flatten()[order].view_as(weight))


def rank_correlation(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float | None:
    """Spearman's rank correlation of two finite maps (h, w); equal values share their mean rank.

    Returns:
        A number in [-1, 1], 1 for equal ranks; None if a map is constant.

    Raises:
        ValueError: shapes differ, or values that are not finite.
    """
    if first.shape != second.shape:
        raise ValueError(f"maps of one size are needed, got {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a map holds values that are not finite")
    return spearman(first, second)
