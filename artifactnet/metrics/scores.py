"""Ratios from counts, with nothing to import: scoring commands and their processes start fast."""

from __future__ import annotations


def ratio(part: float, whole: float) -> float:
    """``part / whole``; 0/0 is 0, as in the benchmark."""
    return part / whole if whole else 0.0


def pixel_scores(tp: int, fp: int, fn: int) -> dict[str, float]:
    """``IoU``, ``PixP``, ``PixR`` and ``PixF1`` in [0, 1] from pixel counts; 0/0 is 0.

    Args:
        tp: artifact pixels found.
        fp: clean pixels called artifact.
        fn: artifact pixels missed.
    """
    parts = {
        "IoU": (tp, tp + fp + fn),
        "PixP": (tp, tp + fp),
        "PixR": (tp, tp + fn),
        "PixF1": (2 * tp, 2 * tp + fp + fn),
    }
    return {name: ratio(part, whole) for name, (part, whole) in parts.items()}
