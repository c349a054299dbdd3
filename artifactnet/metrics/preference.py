"""Which of two systems people prefer: wins over each opponent (FakeXplainer, Fig. 3)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from statistics import NormalDist
from typing import Literal, NamedTuple

Choice = Literal["a", "b", "neutral"]
CHOICES: tuple[Choice, ...] = ("a", "b", "neutral")
_Z = NormalDist().inv_cdf(0.975)


class Vote(NamedTuple):
    """One person's answer to "which of the two explains this image better?"."""

    image: str
    a: str  # the systems, in the order in which they were shown
    b: str
    choice: Choice
    voter: str


class Cell(NamedTuple):
    """How often one system was preferred to another; figures of no decided vote are None."""

    wins: int
    losses: int
    neutral: int  # counted apart: it is neither
    rate: float | None  # wins / (wins + losses), in [0, 1]
    low: float | None  # Wilson's 95 % interval of the rate
    high: float | None
    p: float | None  # exact, two-sided, of "both are preferred equally often"


class PreferenceMatrix(NamedTuple):
    """Every system against every other that it was compared with."""

    systems: tuple[str, ...]  # by their share of all decided votes, the most preferred first
    cells: dict[tuple[str, str], Cell]  # (system, opponent); each pair both ways
    votes: int  # that count
    repeated: int  # left out: the same voter, image and two systems as an earlier vote


def preference_matrix(votes: Iterable[Vote]) -> PreferenceMatrix:
    """Count votes. Of several votes of one person on one pair of answers the first counts.

    Raises:
        ValueError: a choice is unknown, or a system is compared with itself.
    """
    counts: Counter[tuple[str, str, str]] = Counter()  # (system, opponent, won | neutral)
    pairs: set[frozenset[str]] = set()
    seen: set[tuple[str, str, frozenset[str]]] = set()
    total = 0
    for vote in votes:
        pair = frozenset((vote.a, vote.b))
        if len(pair) < 2 or vote.choice not in CHOICES:
            raise ValueError(f"no vote between two systems: {vote}")
        total += 1
        key = vote.voter, vote.image, pair
        if key in seen:
            continue
        seen.add(key)
        pairs.add(pair)
        first, second = (vote.b, vote.a) if vote.choice == "b" else (vote.a, vote.b)
        counts[first, second, "neutral" if vote.choice == "neutral" else "won"] += 1
    cells = {
        (one, other): _cell(
            counts[one, other, "won"],
            counts[other, one, "won"],
            counts[one, other, "neutral"] + counts[other, one, "neutral"],
        )
        for pair in pairs
        for one, other in (sorted(pair), sorted(pair, reverse=True))
    }

    def rank(system: str) -> tuple[float, str]:
        own = [cell for (one, _), cell in cells.items() if one == system]
        wins, losses = sum(cell.wins for cell in own), sum(cell.losses for cell in own)
        return -wins / max(1, wins + losses), system

    systems = tuple(sorted({name for pair in pairs for name in pair}, key=rank))
    return PreferenceMatrix(systems, cells, len(seen), total - len(seen))


def wilson_interval(wins: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), in [0, 1].

    Raises:
        ValueError: there is no vote, or more wins than votes.
    """
    _check(wins, total)
    share, spread = wins / total, _Z**2 / total
    centre = share + spread / 2
    reach = math.sqrt(share * (1 - share) * spread + spread**2 / 4)
    low, high = (centre - reach) / (1 + spread), (centre + reach) / (1 + spread)
    # without losses the upper end is 1, but for rounding
    return (low if wins else 0.0), (high if wins < total else 1.0)


def binomial_p(wins: int, total: int) -> float:
    """Exact two-sided p-value of "a win is as likely as a loss", in (0, 1].

    Raises:
        ValueError: there is no vote, or more wins than votes.
    """
    _check(wins, total)
    term = tail = 1  # of the binomial coefficients, as whole numbers
    for k in range(min(wins, total - wins)):
        term = term * (total - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**total)


def _cell(wins: int, losses: int, neutral: int) -> Cell:
    total = wins + losses
    if not total:
        return Cell(wins, losses, neutral, None, None, None, None)
    rate, p = wins / total, binomial_p(wins, total)
    return Cell(wins, losses, neutral, rate, *wilson_interval(wins, total), p)


def _check(wins: int, total: int) -> None:
    if not 0 <= wins <= total or total < 1:
        raise ValueError(f"need wins in 0..total and a vote, got {wins} of {total}")
