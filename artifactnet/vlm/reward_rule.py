"""What a sampled answer earns: the form in which every task tells GRPO its rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from artifactnet.vlm.rows import Row


@dataclass(frozen=True, slots=True)
class Earned:
    """What an answer earns.

    Attributes:
        total: its reward.
        parts: of which the reward is made, by name, unweighted; one of them is ``format``.
        figures: other numbers to log, by name; ``regions`` is how many regions the answer has.
    """

    total: float
    parts: Mapping[str, float]
    figures: Mapping[str, float]


class RewardRule(Protocol):
    """Rewards answers about images.

    Attributes:
        parts: names of `Earned.parts`.
    """

    parts: tuple[str, ...]

    def __call__(self, text: str, row: Row, step: int, steps: int) -> Earned:
        """What an answer earns.

        Args:
            text: the answer, with its special tokens.
            row: that it is about.
            step: optimizer steps taken so far, from 0.
            steps: of the training, at least 1.
        """
        ...
