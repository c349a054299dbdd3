"""Scores from confusion counts, without any third-party package.

0/0 is 0, as in the benchmark (X-AIGD).
"""

from __future__ import annotations

from typing import Any


def ratio(part: float, whole: float) -> float:
    """``part / whole``; 0/0 is 0."""
    return part / whole if whole else 0.0


def pixel_scores(tp: int, fp: int, fn: int) -> dict[str, float]:
    """``IoU``, ``PixP``, ``PixR`` and ``PixF1`` in [0, 1] from pixel counts.

    Args:
        tp: artifact pixels found.
        fp: clean pixels called artifact.
        fn: artifact pixels missed.
    """
    return {
        "IoU": ratio(tp, tp + fp + fn),
        "PixP": ratio(tp, tp + fp),
        "PixR": ratio(tp, tp + fn),
        "PixF1": ratio(2 * tp, 2 * tp + fp + fn),
    }


def instance_scores(tp: int, fp: int, fn: int, t: float = 0.5) -> dict[str, float]:
    """Precision, recall and F1 in [0, 1] from counts of instances and regions.

    Args:
        tp: matched instances.
        fp: unmatched regions.
        fn: unmatched instances.
        t: the overlap threshold, for the names only.

    Returns:
        ``P@t``, ``R@t`` and ``F1@t`` with the threshold in the name, as in ``P@0.5``.
    """
    return {
        f"P@{t:g}": ratio(tp, tp + fp),
        f"R@{t:g}": ratio(tp, tp + fn),
        f"F1@{t:g}": ratio(2 * tp, 2 * tp + fp + fn),
    }


def verdict_scores(tp: int, fp: int, tn: int, fn: int) -> dict[str, Any]:
    """Authenticity scores of the benchmark (X-AIGD Sec. 5) in [0, 1]; fake is the positive class.

    Balanced accuracy is the mean of real and fake accuracy. With images of one class only it is
    the accuracy of that class, and ``note`` says so.

    Args:
        tp: fakes called fake.
        fp: real images called fake.
        tn: real images called real.
        fn: fakes called real.

    Returns:
        ``balanced_accuracy``, ``real_accuracy``, ``fake_accuracy``, ``precision``,
        ``recall``, ``f1``, the four counts, ``real`` and ``fake`` (images per class), and
        ``note``, empty where both classes occur.
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
