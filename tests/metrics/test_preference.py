"""Preference of one system over another, against worked examples and sums over all outcomes."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.metrics.preference import Vote, binomial_p, preference_matrix, wilson_interval


def votes(outcomes: str, a: str = "ours", b: str = "theirs") -> list[Vote]:
    """One voter an image; each letter is a, b or n (neutral)."""
    words = {"a": "a", "b": "b", "n": "neutral"}
    return [Vote(f"{k}.png", a, b, words[one], "v") for k, one in enumerate(outcomes)]


@pytest.mark.parametrize(
    ("wins", "losses", "rate", "low", "high", "p"),
    [(9, 3, 0.75, 0.4677, 0.9111, 0.145996), (529, 471, 0.529, 0.4980, 0.5598, 0.071414)],
)
def test_worked_examples(wins, losses, rate, low, high, p) -> None:
    matrix = preference_matrix(votes("a" * wins + "b" * losses + "n" * 5))
    cell = matrix.cells["ours", "theirs"]
    assert (cell.wins, cell.losses, cell.neutral, cell.rate) == (wins, losses, 5, rate)
    assert (cell.low, cell.high) == pytest.approx((low, high), abs=5e-5)
    assert cell.p == pytest.approx(p, abs=5e-7)
    other = matrix.cells["theirs", "ours"]
    assert (other.wins, other.losses, other.neutral, other.p) == (losses, wins, 5, cell.p)
    assert (other.low, other.high) == pytest.approx((1 - cell.high, 1 - cell.low), abs=1e-12)
    assert (matrix.systems, matrix.votes) == (("ours", "theirs"), wins + losses + 5)


@pytest.mark.parametrize("total", range(1, 11))
def test_p_is_the_share_of_outcomes_that_are_as_far_from_even(total: int) -> None:
    sums = [sum(outcome) for outcome in product((0, 1), repeat=total)]
    for wins in range(total + 1):
        as_far = sum(abs(2 * one - total) >= abs(2 * wins - total) for one in sums)
        assert binomial_p(wins, total) == as_far / 2**total


@given(st.integers(1, 2000), st.data())
def test_the_interval_is_where_the_score_test_does_not_reject(total: int, data) -> None:
    wins = data.draw(st.integers(0, total))
    ends = wilson_interval(wins, total)
    assert 0 <= ends[0] <= wins / total <= ends[1] <= 1
    for end in ends:
        if 0 < end < 1:  # its distance from the share is 1.96 standard deviations of its own
            z = (wins / total - end) / math.sqrt(end * (1 - end) / total)
            assert abs(z) == pytest.approx(1.959963984540054, rel=1e-6)


def test_the_order_in_which_systems_were_shown_does_not_matter() -> None:
    shown = [
        Vote("1", "x", "y", "a", "v"),
        Vote("2", "y", "x", "b", "v"),
        Vote("3", "y", "x", "a", "v"),
        Vote("4", "y", "x", "neutral", "v"),
        Vote("4", "z", "x", "a", "v"),
    ]
    matrix = preference_matrix(shown)
    assert matrix.cells["x", "y"][:3] == (2, 1, 1)
    assert matrix.cells["y", "x"][:3] == (1, 2, 1)
    assert matrix.cells["z", "x"][:3] == (1, 0, 0)
    assert ("z", "y") not in matrix.cells
    assert matrix.systems == ("z", "x", "y")  # 1 of 1, 2 of 4, 1 of 3


def test_the_first_vote_of_a_voter_on_a_pair_counts() -> None:
    twice = [
        Vote("1", "x", "y", "a", "v"),
        Vote("1", "y", "x", "a", "v"),  # the same pair, shown the other way round
        Vote("1", "x", "y", "b", "w"),
        Vote("2", "x", "y", "a", "v"),
    ]
    matrix = preference_matrix(twice)
    assert matrix.cells["x", "y"][:3] == (2, 1, 0)
    assert (matrix.votes, matrix.repeated) == (3, 1)


def test_neutral_votes_alone_give_no_figure() -> None:
    cell = preference_matrix(votes("nn")).cells["ours", "theirs"]
    assert cell == (0, 0, 2, None, None, None, None)
    assert preference_matrix([]) == ((), {}, 0, 0)


def test_bad_input_is_refused() -> None:
    for bad in (Vote("1", "x", "x", "a", "v"), Vote("1", "x", "y", "both", "v")):
        with pytest.raises(ValueError, match="no vote between two systems"):
            preference_matrix([bad])
    for call in (binomial_p, wilson_interval):
        for wins, total in ((0, 0), (3, 2), (-1, 2)):
            with pytest.raises(ValueError, match="need wins in 0..total"):
                call(wins, total)
