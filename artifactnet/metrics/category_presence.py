"""Image-level scores of artifact categories: which ones does an image show (X-AIGD, Table 9)?

0/0 is 0; counts accompany every score.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from artifactnet.metrics.confusion import ratio
from artifactnet.metrics.groups import annotated_fakes, uncategorized
from artifactnet.taxonomy import CATEGORIES

_OUTCOMES = ("tp", "fp", "fn", "tn")


def categories_present(mask: Tensor) -> Tensor:
    """Categories in at least one pixel of (B, H, W) uint8 bit fields: (B, 7) bool."""
    flat = mask.flatten(1)
    # "!= 0", since `any` of uint8 is uint8
    return torch.stack([(flat & item.bit != 0).any(dim=1) for item in CATEGORIES], dim=1)


def presence_counts(predicted: Tensor, truth: Tensor) -> Tensor:
    """Confusion counts of every category from (B, 7) bool answers, see `categories_present`.

    Returns:
        (7, 4) int64 counts of images: TP, FP, FN, TN.

    Raises:
        ValueError: shapes differ or are not (B, 7), or the answers are not bool.
    """
    if predicted.shape != truth.shape or predicted.shape[1:] != (len(CATEGORIES),):
        raise ValueError(
            f"need (B, {len(CATEGORIES)}) answers, got shapes {tuple(predicted.shape)} and "
            f"{tuple(truth.shape)}"
        )
    if predicted.dtype != torch.bool or truth.dtype != torch.bool:
        raise ValueError(f"answers must be bool, got {predicted.dtype} and {truth.dtype}")
    outcomes = [predicted & truth, predicted & ~truth, ~predicted & truth, ~predicted & ~truth]
    return torch.stack([outcome.sum(dim=0) for outcome in outcomes], dim=1)


def presence_scores(counts: Tensor) -> dict[str, dict[str, float]]:
    """Image-level precision, recall and F1 of each category (Table 9 shows the F1).

    Args:
        counts: (7, 4) see `presence_counts`.

    Returns:
        By category label ``precision``, ``recall``, ``f1`` in [0, 1] and the four counts;
        under ``"macro"`` the mean of the three over all seven categories, including those that
        never occur (their scores are 0).
    """
    table: dict[str, dict[str, float]] = {}
    for item, row in zip(CATEGORIES, counts.tolist(), strict=True):
        tp, fp, fn, _ = row
        table[item.label] = {
            "precision": ratio(tp, tp + fp),
            "recall": ratio(tp, tp + fn),
            "f1": ratio(2 * tp, 2 * tp + fp + fn),
            **dict(zip(_OUTCOMES, row, strict=True)),
        }
    rows = list(table.values())
    table["macro"] = {
        name: sum(row[name] for row in rows) / len(rows) for name in ("precision", "recall", "f1")
    }
    return table


def random_f1(prevalence: float) -> float:
    """F1 of guessing "present" with probability 1/2, in the limit of many images.

    This is the row "Random" of Table 9: precision is the prevalence q, recall 1/2, so that F1 is
    q / (q + 1/2).

    Args:
        prevalence: share of the images that show a category, in [0, 1].
    """
    return prevalence / (prevalence + 0.5)


class PresenceMetric(Metric):
    """`presence_scores` over a data set; counts are int64 and add up over processes."""

    full_state_update = False
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(len(CATEGORIES), len(_OUTCOMES), dtype=torch.int64)
        self.add_state("counts", default=zeros, dist_reduce_fx="sum")

    def update(self, predicted: Tensor, truth: Tensor, annotation: Tensor, labels: Tensor) -> None:
        """Add a batch; annotated fakes are evaluated unless their artifacts have no category.

        ``predicted`` is (B, 7) bool; truth, annotation and labels as in `SegmentationMetric`.
        """
        used, _ = annotated_fakes(annotation, labels)
        used = used.to(truth.device) & ~uncategorized(truth)
        new = presence_counts(
            predicted[used.to(predicted.device)].to(truth.device), categories_present(truth[used])
        )
        self.counts += new.to(self.counts.device)

    def compute(self) -> dict[str, dict[str, float]]:
        """See `presence_scores`."""
        return presence_scores(self.counts)
