"""Authenticity judgment: real or fake, overall and per generator (X-AIGD Sec. 5).

Fake is the positive class. 0/0 is 0, as in the benchmark; the counts stand beside every
figure, so that an empty denominator can be told from a bad result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from artifactnet.metrics.scores import verdict_scores
from artifactnet.metrics.selection import generator_names, generator_rows
from artifactnet.types import ArtifactNetError


class Confusion(NamedTuple):
    """Counts of images."""

    tp: int  # fakes called fake
    fp: int  # real images called fake
    tn: int  # real images called real
    fn: int  # fakes called real


def confusion(labels: Tensor, probabilities: Tensor, threshold: float) -> Confusion:
    """Count right and wrong answers.

    Args:
        labels: (N,) 0 real, 1 fake.
        probabilities: (N,) of being fake, in [0, 1].
        threshold: an image is called fake if ``probability >= threshold``.

    Raises:
        ValueError: shapes differ, or a label is neither 0 nor 1.
        ArtifactNetError: a probability is not a number in [0, 1].
    """
    _check(labels, probabilities)
    fake = labels == 1
    called = probabilities.double() >= threshold  # double: 0.7 must not become 0.69999999
    counts = (fake & called, ~fake & called, ~fake & ~called, fake & ~called)
    return Confusion(*(int(count.sum()) for count in counts))


def auc(labels: Tensor, probabilities: Tensor) -> float | None:
    """Area under the ROC curve: the exact Mann-Whitney statistic, ties counting one half.

    Args:
        labels: (N,) 0 real, 1 fake.
        probabilities: (N,) of being fake, in [0, 1].

    Returns:
        Share of (fake, real) pairs in which the fake has the higher probability; None where
        one class is missing and there is no pair.

    Raises:
        ValueError: shapes differ, or a label is neither 0 nor 1.
        ArtifactNetError: a probability is not a number in [0, 1].
    """
    _check(labels, probabilities)
    fake, real = probabilities[labels == 1], probabilities[labels == 0].sort().values
    if not len(fake) or not len(real):
        return None
    below = torch.searchsorted(real, fake.contiguous())
    not_above = torch.searchsorted(real, fake.contiguous(), right=True)
    return int((below + not_above).sum()) / (2 * len(fake) * len(real))


def _check(labels: Tensor, probabilities: Tensor) -> None:
    """Refuse what would silently be counted as an answer."""
    if labels.ndim != 1 or labels.shape != probabilities.shape:
        raise ValueError(
            f"need equally many labels and probabilities, got shapes {tuple(labels.shape)} and "
            f"{tuple(probabilities.shape)}"
        )
    if not ((labels == 0) | (labels == 1)).all():
        raise ValueError("labels must be 0 (real) or 1 (fake)")
    bad = int((~((probabilities >= 0) & (probabilities <= 1))).sum())
    if bad:
        raise ArtifactNetError(
            f"{bad} of {len(probabilities)} probabilities are not numbers in [0, 1]: the model's "
            "weights are broken or its training diverged; use an earlier checkpoint"
        )


class AuthenticityMetric(Metric):
    """Authenticity scores over a data set, overall and per generator.

    Every probability is kept (a few bytes per image), since the AUC needs them all; processes
    are joined by concatenation, so images may be dealt out unevenly, even none to a process.
    """

    full_state_update = False
    probabilities: list[Tensor]
    labels: list[Tensor]
    generators: list[Tensor]

    def __init__(self, generators: Sequence[str], threshold: float = 0.5) -> None:
        """Fix the rows of the result.

        Args:
            generators: names of all generators that may occur, equal on every process; a
                ``"real"`` among them is ignored.
            threshold: an image is called fake if ``probability >= threshold``.
        """
        super().__init__()
        self.names = generator_names(generators)
        self.threshold = threshold
        # All float32 and one-dimensional: torchmetrics stands in for an empty process with
        # exactly that.
        for state in ("probabilities", "labels", "generators"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, labels: Tensor, generators: Sequence[str]) -> None:
        """Add a batch.

        Args:
            probabilities: (B,) of being fake, in [0, 1].
            labels: (B,) 0 real, 1 fake.
            generators: B names; looked at for fakes only.

        Raises:
            ValueError: shapes differ, a label is neither 0 nor 1, or a fake's generator is not
                among those named at construction.
            ArtifactNetError: a probability is not a number in [0, 1].
        """
        labels = labels.to(self.device)
        probabilities = probabilities.detach().to(self.device, torch.float32)
        _check(labels, probabilities)
        rows = generator_rows(self.names, generators, labels)
        rows = torch.where(labels == 1, rows, -1)
        self.probabilities.append(probabilities)
        self.labels.append(labels.float())
        self.generators.append(rows.float())

    def compute(self) -> dict[str, dict[str, Any]]:
        """`verdict_scores` and ``auc`` of all images (``"all"``) and of each generator seen.

        A generator's row sets its fakes against all real images.
        """
        if not len(self.labels):
            return {"all": {**verdict_scores(0, 0, 0, 0), "auc": None}}
        labels, probabilities = dim_zero_cat(self.labels), dim_zero_cat(self.probabilities)
        ids = dim_zero_cat(self.generators)
        rows = {"all": torch.ones_like(labels, dtype=torch.bool)}
        for index, name in enumerate(self.names):
            if (ids == index).any():
                rows[name] = (ids == index) | (labels == 0)
        return {
            name: {
                **verdict_scores(*confusion(labels[kept], probabilities[kept], self.threshold)),
                "auc": auc(labels[kept], probabilities[kept]),
            }
            for name, kept in rows.items()
        }
