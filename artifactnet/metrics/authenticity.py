"""Authenticity judgment: real or fake, overall and per generator (X-AIGD Sec. 5).

Fake is the positive class. 0/0 is 0, as in the benchmark; counts accompany every score, so that
an empty denominator can be told from a bad result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from artifactnet.metrics import ranking
from artifactnet.metrics.checks import BoolArray, Float64Array, checked_answers
from artifactnet.metrics.confusion import verdict_scores
from artifactnet.metrics.groups import generator_names, generator_rows


class Confusion(NamedTuple):
    """Counts of images."""

    tp: int  # fakes called fake
    fp: int  # real images called fake
    tn: int  # real images called real
    fn: int  # fakes called real


def confusion(labels: Tensor, probabilities: Tensor, threshold: float) -> Confusion:
    """Confusion counts at a threshold.

    Args:
        labels: (N,) 0 real, 1 fake.
        probabilities: (N,) of being fake, in [0, 1].
        threshold: an image is called fake if ``probability >= threshold``.

    Raises:
        ValueError: shapes differ, or a label is neither 0 nor 1.
        ArtifactNetError: a probability is not a number in [0, 1].
    """
    # compared in float64: float32(0.7) is below 0.7
    fake, chances = _arrays(labels, probabilities)
    called = chances >= threshold
    counts = (fake & called, ~fake & called, ~fake & ~called, fake & ~called)
    return Confusion(*(int(count.sum()) for count in counts))


def auc(labels: Tensor, probabilities: Tensor) -> float | None:
    """`ranking.auc` of fakes above real images; None where one class is missing.

    Arguments and errors as in `confusion`.
    """
    return ranking.auc(*_arrays(labels, probabilities))


def _arrays(labels: Tensor, probabilities: Tensor) -> tuple[BoolArray, Float64Array]:
    return checked_answers(labels.cpu(), probabilities.detach().double().cpu())


class AuthenticityMetric(Metric):
    """Authenticity scores over a data set, overall and per generator.

    Keeps every probability (a few bytes per image), since the AUC needs all of them. Processes
    are joined by concatenation, so they may hold different numbers of images, even none.
    """

    full_state_update = False
    probabilities: list[Tensor]
    labels: list[Tensor]
    generators: list[Tensor]

    def __init__(self, generators: Sequence[str], threshold: float = 0.5) -> None:
        """Start empty.

        Args:
            generators: names of all generators that may occur, equal on every process; a
                ``"real"`` among them is ignored.
            threshold: an image is called fake if ``probability >= threshold``.
        """
        super().__init__()
        self.names = generator_names(generators)
        self.threshold = threshold
        # float32 and one-dimensional, as the placeholder of torchmetrics for an empty process
        for state in ("probabilities", "labels", "generators"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, labels: Tensor, generators: Sequence[str]) -> None:
        """Add a batch; arguments and errors as in `confusion`.

        Raises:
            ValueError: also if the generator of a fake is not among those named at construction.
        """
        labels = labels.to(self.device)
        probabilities = probabilities.detach().to(self.device, torch.float32)
        _arrays(labels, probabilities)
        rows = generator_rows(self.names, generators, labels)
        rows = torch.where(labels == 1, rows, -1)
        self.probabilities.append(probabilities)
        self.labels.append(labels.float())
        self.generators.append(rows.float())

    def compute(self) -> dict[str, dict[str, Any]]:
        """`verdict_scores` and ``auc`` of all images (``"all"``) and of each generator seen.

        A generator's row compares its fakes with all real images.
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
