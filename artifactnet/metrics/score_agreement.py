"""How well predicted plausibility scores agree with people's: PLCC and SRCC (HEIE Sec. 4.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from artifactnet.types import ArtifactNetError


def plcc(predicted: Tensor, true: Tensor) -> float | None:
    """Pearson's linear correlation coefficient, in [-1, 1].

    Args:
        predicted: (N,) scores.
        true: (N,) scores.

    Returns:
        None where it is not defined: fewer than two scores, or either side constant.

    Raises:
        ValueError: shapes differ, or a true score is not finite.
        ArtifactNetError: a predicted score is not finite.
    """
    x, y = _check(predicted, true)
    if len(x) < 2 or _constant(x) or _constant(y):
        return None
    # scaled first, so that squares of tiny differences do not vanish
    x, y = (part / part.abs().max() for part in (x - x.mean(), y - y.mean()))
    return float((x * y).sum() / (x.norm() * y.norm()))


def srcc(predicted: Tensor, true: Tensor) -> float | None:
    """Spearman's rank correlation coefficient: `plcc` of the ranks, ties sharing their mean rank.

    Args:
        predicted: (N,) scores.
        true: (N,) scores.

    Returns:
        In [-1, 1]; None where it is not defined: fewer than two scores, or either side constant.

    Raises:
        ValueError: shapes differ, or a true score is not finite.
        ArtifactNetError: a predicted score is not finite.
    """
    return plcc(*(_ranks(part) for part in _check(predicted, true)))


def _constant(values: Tensor) -> bool:
    return bool(values.max() == values.min())


def _ranks(values: Tensor) -> Tensor:
    ordered = values.sort().values
    below = torch.searchsorted(ordered, values)
    return (below + torch.searchsorted(ordered, values, right=True)).double() / 2


def _check(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64."""
    if true.ndim != 1 or predicted.shape != true.shape:
        raise ValueError(
            "need equally many predicted and true scores, got shapes "
            f"{tuple(predicted.shape)} and {tuple(true.shape)}"
        )
    if not bool(true.isfinite().all()):
        raise ValueError("a true score is not finite")
    if not bool(predicted.isfinite().all()):
        raise ArtifactNetError(
            "a predicted score is not finite: the model's weights are broken or its training "
            "diverged; use an earlier checkpoint"
        )
    return predicted.double(), true.double()


class ScoreAgreementMetric(Metric):
    """`plcc` and `srcc` over a data set.

    Every score is kept (a few bytes per image), since ranks need them all; processes are joined
    by concatenation, so images may be dealt out unevenly, even none to a process.
    """

    full_state_update = False
    predicted: list[Tensor]
    true: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        # float32 and one-dimensional: so torchmetrics stands in for an empty process
        self.add_state("predicted", default=[], dist_reduce_fx="cat")
        self.add_state("true", default=[], dist_reduce_fx="cat")

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Add a batch.

        Args:
            predicted: (B,) plausibility in [0, 1], 1: nothing looks wrong.
            true: (B,) the same of people; images where it is NaN are left out.

        Raises:
            ValueError: shapes differ, or a true score is infinite.
            ArtifactNetError: a predicted score that takes part is not finite.
        """
        if true.ndim != 1 or predicted.shape != true.shape:
            raise ValueError(f"{tuple(predicted.shape)} predicted, {tuple(true.shape)} true scores")
        known = ~true.isnan()
        predicted, true = predicted.detach()[known], true[known]
        _check(predicted, true)
        self.predicted.append(predicted.to(self.device, torch.float32))
        self.true.append(true.to(self.device, torch.float32))

    def compute(self) -> dict[str, Any]:
        """``PLCC``, ``SRCC`` (None where not defined) and ``images`` that have a true score."""
        if not len(self.true):
            return {"PLCC": None, "SRCC": None, "images": 0}
        predicted, true = dim_zero_cat(self.predicted), dim_zero_cat(self.true)
        return {"PLCC": plcc(predicted, true), "SRCC": srcc(predicted, true), "images": len(true)}
