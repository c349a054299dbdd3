"""Real or fake: scores from counts of verdicts, with no package to import."""

from __future__ import annotations

from typing import Any


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


def verdict_scores(tp: int, fp: int, tn: int, fn: int) -> dict[str, Any]:
    """Scores of the benchmark (X-AIGD Sec. 5) from counts; fractions in [0, 1], 0/0 is 0.

    Balanced accuracy is the mean of real and fake accuracy. Where only one class is present
    it is the accuracy of that class, and ``note`` says so.

    Args:
        tp: fakes called fake.
        fp: real images called fake.
        tn: real images called real.
        fn: fakes called real.

    Returns:
        ``balanced_accuracy``, ``real_accuracy``, ``fake_accuracy``, ``precision``,
        ``recall``, ``f1``, the four counts, ``real`` and ``fake`` (images per class), and
        ``note``, empty where nothing needs saying.
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
