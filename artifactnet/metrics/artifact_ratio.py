"""Accuracy on fakes by Perceptual Artifact Ratio: are large artifacts easier to detect?

X-AIGD, Sec. 4 and Fig. 3c. 0/0 is 0; counts accompany every accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torchmetrics import Metric

from artifactnet.metrics.confusion import ratio
from artifactnet.metrics.groups import annotated_fakes

RATIO_EDGES = (0.01, 0.02, 0.05, 0.1, 0.2)  # ours: the paper's text does not give its bins


def artifact_ratio(mask: Tensor) -> Tensor:
    """Perceptual Artifact Ratio: share of an image's pixels inside any artifact (Sec. 4).

    Of (B, H, W) uint8 bit fields, bit 0 included; (B,) float64 in [0, 1].
    """
    inside = (mask != 0).flatten(1)
    return inside.sum(dim=1).double() / inside.shape[1]


def ratio_bins(ratios: Tensor, edges: Sequence[float] = RATIO_EDGES) -> Tensor:
    """Bin of each ratio: exactly 0, then (0, e1], (e1, e2], ..., (last edge, 1].

    Images without artifacts have a bin of their own, since the paper compares PAR = 0 with PAR > 0.

    Args:
        ratios: (B,) in [0, 1].
        edges: rising, strictly between 0 and 1; may be empty.

    Returns:
        (B,) int64 in 0..len(edges) + 1.

    Raises:
        ValueError: edges are not rising inside (0, 1), or a ratio is not in [0, 1].
    """
    limits = [0.0, *edges, 1.0]
    if any(not low < high for low, high in pairwise(limits)):
        raise ValueError(f"edges must rise strictly between 0 and 1, got {list(edges)}")
    if not ((ratios >= 0) & (ratios <= 1)).all():
        raise ValueError("ratios must be in [0, 1]")
    inner = torch.tensor(limits[:-1], dtype=torch.float64, device=ratios.device)
    return torch.searchsorted(inner, ratios.double().contiguous())


def accuracy_by_ratio(
    ratios: Tensor, correct: Tensor, edges: Sequence[float] = RATIO_EDGES
) -> list[dict[str, float]]:
    """Accuracy on fakes by Perceptual Artifact Ratio (Fig. 3c).

    Args:
        ratios: (B,) of annotated fakes, see `artifact_ratio`.
        correct: (B,) bool, the fake was called fake.
        edges: see `ratio_bins`, whose errors are raised too.

    Returns:
        For each bin, in order: ``above`` and ``up_to`` (its limits; both 0 for the first),
        ``images``, ``correct`` and ``accuracy``.

    Raises:
        ValueError: shapes differ.
    """
    return _bin_table(_bin_counts(ratios, correct, edges), edges)


def _bin_counts(ratios: Tensor, correct: Tensor, edges: Sequence[float]) -> Tensor:
    """(bins, 2) int64: images, and correct ones among them."""
    if ratios.ndim != 1 or correct.shape != ratios.shape:
        raise ValueError(
            f"need one answer per ratio, got shapes {tuple(ratios.shape)} and "
            f"{tuple(correct.shape)}"
        )
    bins = ratio_bins(ratios, edges)
    counts = [torch.bincount(b, minlength=len(edges) + 2) for b in (bins, bins[correct.bool()])]
    return torch.stack(counts, dim=1)


def _bin_table(counts: Tensor, edges: Sequence[float]) -> list[dict[str, float]]:
    lows, highs = [0.0, 0.0, *edges], [0.0, *edges, 1.0]
    return [
        {
            "above": low,
            "up_to": high,
            "images": images,
            "correct": right,
            "accuracy": ratio(right, images),
        }
        for low, high, (images, right) in zip(lows, highs, counts.tolist(), strict=True)
    ]


class ArtifactRatioMetric(Metric):
    """`accuracy_by_ratio` over a data set; counts are int64 and add up over processes."""

    full_state_update = False
    counts: Tensor

    def __init__(self, edges: Sequence[float] = RATIO_EDGES, threshold: float = 0.5) -> None:
        """Start empty; an image is called fake if ``probability >= threshold``.

        Raises:
            ValueError: see `ratio_bins`.
        """
        super().__init__()
        ratio_bins(torch.zeros(0), edges)
        self.edges = tuple(edges)
        self.threshold = threshold
        zeros = torch.zeros(len(self.edges) + 2, 2, dtype=torch.int64)
        self.add_state("counts", default=zeros, dist_reduce_fx="sum")

    def update(
        self, probabilities: Tensor, truth: Tensor, annotation: Tensor, labels: Tensor
    ) -> None:
        """Add a batch of which annotated fakes are evaluated.

        ``probabilities`` are (B,) of being fake; the others as in `SegmentationMetric`.
        """
        used = annotated_fakes(annotation, labels)[0].to(truth.device)
        correct = probabilities.detach().double().to(truth.device)[used] >= self.threshold
        new = _bin_counts(artifact_ratio(truth[used]), correct, self.edges)
        self.counts += new.to(self.counts.device)

    def compute(self) -> list[dict[str, float]]:
        """See `accuracy_by_ratio`."""
        return _bin_table(self.counts, self.edges)
