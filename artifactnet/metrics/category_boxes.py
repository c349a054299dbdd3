"""Boxes with categories: the detection reward of X-AIGD's GRPO baseline (X-AIGD, Sec. 6, Table 12).

The paper follows Visual-RFT. There are no confidences here, so predictions come in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from artifactnet.metrics.entity_boxes import pairwise_iou

LEAST_IOU = 0.5  # exceeded strictly


class CategoryBox(NamedTuple):
    """A box (x1, y1, x2, y2) in pixels, half-open, and what is wrong in it."""

    category: str
    box: tuple[float, float, float, float]


def detection_reward(predicted: Sequence[CategoryBox], truth: Sequence[CategoryBox]) -> float:
    """How well some boxes fit the annotated ones, in [0, 1].

    Each prediction in turn takes the true box of its category with the largest IoU that is still
    free. If that IoU is above 0.5 it is counted, else 0 is, and the box stays free (our reading).
    The sum is divided by the larger number of boxes. Predictions that occur twice count once.

    Args:
        predicted: in the order of the answer.
        truth: annotated.

    Returns:
        1 if both are empty, 0 if one is.

    Raises:
        ValueError: a box is not four finite numbers.
    """
    mine = list(dict.fromkeys(predicted))
    if not mine or not truth:
        return float(len(mine) == len(truth))
    iou = pairwise_iou([one.box for one in mine], [one.box for one in truth])
    taken: set[int] = set()
    total = 0.0
    for row, one in zip(iou.tolist(), mine, strict=True):
        free = [
            k for k, other in enumerate(truth) if other.category == one.category and k not in taken
        ]
        best = max(free, key=row.__getitem__, default=None)
        if best is not None and row[best] > LEAST_IOU:
            taken.add(best)
            total += row[best]
    return total / max(len(mine), len(truth))
