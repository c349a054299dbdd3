"""Three verdicts: fake, real, and uncertain between two limits that are chosen by error rates.

``fake_from`` bounds the false alarms: photographs called fake. ``real_below`` bounds the missed
fakes: those called real.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric

from artifactnet.metrics.checks import Float64Array, checked_answers
from artifactnet.metrics.groups import generator_names, generator_rows
from artifactnet.types import VERDICTS, ArtifactNetError

REAL, ALL_FAKES = "real", "fake"  # rows of `VerdictMetric`, beside the generators


def choose_limits(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, false_alarms: float, missed: float
) -> tuple[float, float]:
    """``(real_below, fake_from)`` for two rates of errors on these images.

    ``fake_from`` is the smallest limit at which at most a share ``false_alarms`` of the photographs
    has ``probability >= fake_from``; ``real_below`` the largest at which at most a share ``missed``
    of the fakes has ``probability < real_below``, lowered to ``fake_from`` where it would exceed
    it. All limits between two probabilities that follow each other judge these images alike: one
    about half-way is returned, so that rounding on another device changes no verdict.

    Args:
        labels: (N,) 0 real, 1 fake; both occur.
        probabilities: (N,) of being fake, in [0, 1].
        false_alarms, missed: above 0 and below 1.

    Raises:
        ValueError: shapes differ, a label is neither 0 nor 1, or a rate is not inside (0, 1).
        ArtifactNetError: a probability is not a number in [0, 1]; a class has too few images for
            its rate, so that not one of them may be wrong; or more of a class than may be wrong
            have a probability of exactly 1 (photographs) or 0 (fakes).
    """
    fake, chances = checked_answers(labels, probabilities)
    low, high = _gap(chances[~fake], chances, false_alarms, "photographs", "false alarms", 1.0)
    fake_from = _between(low, high)
    # with the sign changed, a fake that is too low is one that is too high
    low, high = _gap(-chances[fake], -chances, missed, "fakes", "missed fakes", 0.0)
    return min(_between(-high, -low), fake_from), fake_from


def _gap(
    own: Float64Array, every: Float64Array, rate: float, who: str, what: str, end: float
) -> tuple[float, float]:
    """The lowest gap between values in which a limit is exceeded by at most a share of ``own``.

    ``every`` holds the values of all images; none is above ``end``.
    """
    if not 0 < rate < 1:
        raise ValueError(f"a rate must be above 0 and below 1, not {rate}")
    allowed = allowed_errors(len(own), rate)
    if not allowed:
        raise ArtifactNetError(
            f"{len(own)} {who} are too few for {what} of {rate:g}: one of them is more than that; "
            f"at least {images_needed(rate)} are needed"
        )
    highest = np.sort(own)[::-1]
    barred = float(highest[allowed])  # the limit must be above it
    above = every[every > barred]
    following = float(above.min()) if len(above) else end
    if not barred < following:
        raise ArtifactNetError(
            f"more than {allowed} of {len(own)} {who} have a probability of exactly "
            f"{end:g}: no limit keeps {what} to {rate:g}"
        )
    return barred, following


def allowed_errors(count: int, rate: float) -> int:
    """The largest number of ``count`` images that is at most a share ``rate`` of them."""
    allowed = int(rate * count) + 1  # one more: 0.29 * 100 is 28.999999999999996
    while allowed / count > rate:
        allowed -= 1
    return allowed


def images_needed(rate: float) -> int:
    """The least number of images of which one is at most a share ``rate``."""
    needed = max(1, int(1 / rate) - 1)  # one less: the quotient may have been rounded up
    while 1 / needed > rate:
        needed += 1
    return needed


def _between(low: float, high: float) -> float:
    """A number above ``low`` and at most ``high``: near the middle, with few digits."""
    middle = (low + high) / 2
    for digits in range(2, 16):
        rounded = round(middle, digits)
        if low < rounded and abs(rounded - middle) <= (high - low) / 4:
            return rounded
    return middle if low < middle else high


def verdict_indices(probabilities: Tensor, limits: tuple[float, float]) -> Tensor:
    """(N,) places in `artifactnet.types.VERDICTS` for ``limits``, (real_below, fake_from)."""
    chances = probabilities.detach().double()  # float32(0.7) is below 0.7
    return (chances < limits[1]).long() + (chances < limits[0]).long()


class VerdictMetric(Metric):
    """How often photographs and fakes, all and of each generator, get each of three verdicts."""

    full_state_update = False
    counts: Tensor

    def __init__(self, generators: Sequence[str], limits: tuple[float, float]) -> None:
        """Start empty.

        Args:
            generators: names of all generators that may occur, equal on every process; a
                ``"real"`` among them is ignored.
            limits: (real_below, fake_from).
        """
        super().__init__()
        self.names = generator_names(generators)
        self.limits = limits
        rows = torch.zeros(1 + len(self.names), len(VERDICTS), dtype=torch.long)
        self.add_state("counts", default=rows, dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor, generators: Sequence[str]) -> None:
        """Add a batch.

        Args:
            probabilities: (B,) of being fake, in [0, 1].
            labels: (B,) 0 real, 1 fake.
            generators: name of each image's.

        Raises:
            ValueError: the generator of a fake is not among those named at construction.
        """
        labels = labels.to(self.device)
        rows = generator_rows(self.names, generators, labels)
        rows = torch.where(labels == 1, rows + 1, 0)  # photographs come first
        # on the CPU, since some devices have no float64
        places = verdict_indices(probabilities.cpu(), self.limits).to(self.device)
        found = rows * len(VERDICTS) + places
        self.counts += torch.bincount(found, minlength=self.counts.numel()).view_as(self.counts)

    def compute(self) -> dict[str, Any]:
        """``fake_from`` and ``real_below``, and `shares_of` each group of images.

        These are ``real`` (the photographs, whose share ``fake`` are the false alarms), ``fake``
        (all fakes), and below ``generators`` each generator that was seen.
        """
        counts = self.counts.cpu()
        named = dict(zip(self.names, counts[1:], strict=True))
        rows = {REAL: counts[0], ALL_FAKES: counts[1:].sum(0)}
        shares = {name: shares_of(row) for name, row in rows.items()}
        generators = {name: shares_of(row) for name, row in named.items() if row.sum()}
        low, high = self.limits
        return {"fake_from": high, "real_below": low, **shares, "generators": generators}


def shares_of(counts: Tensor) -> dict[str, Any]:
    """``images``, and the share of each verdict of (3,) counts; None without images."""
    total = int(counts.sum())
    shares = [count / total if total else None for count in counts.tolist()]
    return {"images": total, **dict(zip(VERDICTS, shares, strict=True))}
