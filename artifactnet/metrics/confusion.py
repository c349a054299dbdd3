"""Scores from confusion counts, without any third-party package.

0/0 is 0, as in the benchmark (X-AIGD).
"""

from __future__ import annotations

from typing import Any


def ratio(part: float, whole: float) -> float:
    """``part / whole``; 0/0 is 0."""
    return part / whole if whole else 0.0


def pixel_scores(tp: int, fp: int, fn: int) -> dict[str, float]:
    """``IoU``, ``PixP``, ``PixR`` and ``PixF1`` in [0, 1] from counts of pixels."""
    return {
        "IoU": ratio(tp, tp + fp + fn),
        "PixP": ratio(tp, tp + fp),
        "PixR": ratio(tp, tp + fn),
        "PixF1": ratio(2 * tp, 2 * tp + fp + fn),
    }


def instance_scores(tp: int, fp: int, fn: int, t: float = 0.5) -> dict[str, float]:
    """``P@t``, ``R@t`` and ``F1@t`` in [0, 1], with the overlap threshold in the name (``P@0.5``).

    Args:
        tp: matched instances.
        fp: unmatched regions.
        fn: unmatched instances.
        t: the overlap threshold, for the names only.
    """
    return {
        f"P@{t:g}": ratio(tp, tp + fp),
        f"R@{t:g}": ratio(tp, tp + fn),
        f"F1@{t:g}": ratio(2 * tp, 2 * tp + fp + fn),
    }


def verdict_scores(tp: int, fp: int, tn: int, fn: int) -> dict[str, Any]:
    """Authenticity scores of the benchmark (X-AIGD Sec. 5) in [0, 1]; fake is the positive class.

    Balanced accuracy is the mean of real and fake accuracy; with images of one class only it is
    the accuracy of that class, which ``note`` reports (empty where both classes occur). Beside the
    scores: the four counts of images, and ``real`` and ``fake``, images per class.
    """
    real, fake = tn + fp, tp + fn
    real_accuracy, fake_accuracy = ratio(tn, real), ratio(tp, fake)
    present = [value for value, n in ((real_accuracy, real), (fake_accuracy, fake)) if n]
    notes = {
        (False, False): "no images",
        (True, False): "only real images: balanced accuracy is their accuracy",
        (False, True): "only fake images: balanced accuracy is their accuracy",
    }
    return {
        "balanced_accuracy": ratio(sum(present), len(present)),
        "real_accuracy": real_accuracy,
        "fake_accuracy": fake_accuracy,
        "precision": ratio(tp, tp + fp),
        "recall": fake_accuracy,
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "real": real,
        "fake": fake,
        "note": notes.get((real > 0, fake > 0), ""),
    }
