"""Paired differences: worked examples, every sign vector in exact arithmetic, and symmetries."""

import math
import random
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.metrics.paired import (
    MOST_PAIRS,
    holm,
    paired_difference,
    sign_flip_p,
    smallest_p,
)

EXAMPLE = (1, 0.5, 0.8, -0.2, 0.9, 0.4, 0.7, 0.3, 0.6, 0.1)
HUNDREDTHS = st.lists(st.integers(-100, 100), min_size=1, max_size=10)


def by_all_signs(numbers):
    """Share of the sign vectors, counted one by one in integers."""
    observed = abs(sum(numbers))
    vectors = list(product((1, -1), repeat=len(numbers)))
    hits = sum(
        abs(sum(s * n for s, n in zip(v, numbers, strict=True))) >= observed for v in vectors
    )
    return Fraction(hits, len(vectors))


def test_worked_examples():
    found = paired_difference(EXAMPLE, [0.0] * 10)
    assert found.pairs == 10
    assert found.mean == pytest.approx(0.51, abs=1e-12)
    assert found.std == pytest.approx(0.372529, abs=5e-7)
    assert found.p == 6 / 1024
    assert sign_flip_p([0.3, 0.3, 0.3]) == 0.25
    assert holm([0.01, 0.04, 0.03, 0.2]) == pytest.approx([0.04, 0.09, 0.09, 0.2], abs=1e-12)
    found = paired_difference((82, 83, 85), (0, 0, 0))
    assert found.mean == pytest.approx(83.3333, abs=5e-5)
    assert found.std == pytest.approx(1.527525, abs=5e-7)


@settings(deadline=None, max_examples=200)
@given(HUNDREDTHS)
def test_every_sign_vector_counts_once_and_ties_survive_rounding(numbers):
    """Sums of hundredths tie exactly, but not in floating point."""
    assert sign_flip_p([number / 100 for number in numbers]) == by_all_signs(numbers)


def test_ties_that_rounding_hides():
    """In tenths these are 1, 2, 3, -1, 2: sums of 7 and -7 tie, but not in floating point."""
    values = (0.1, 0.2, 0.3, -0.1, 0.2)
    signed = product(*((value, -value) for value in values))
    sums = [sum(terms) for terms in signed]
    assert sum(abs(total) >= abs(sum(values)) for total in sums) == 4  # two are missed
    assert sign_flip_p(values) == 6 / 32 == by_all_signs((1, 2, 3, -1, 2))


def test_many_pairs():
    rng = random.Random(0)
    numbers = [rng.randint(-60, 100) for _ in range(16)]
    assert sign_flip_p([number / 100 for number in numbers]) == by_all_signs(numbers)
    assert sign_flip_p([1.0] * MOST_PAIRS) == smallest_p(MOST_PAIRS)
    # one minus among 30 equal ones: at least as far have none, or one, of one sign
    assert sign_flip_p([1.0] * 29 + [-1.0]) == 2 * (1 + 30) / 2**30


@settings(deadline=None)
@given(HUNDREDTHS, st.randoms(use_true_random=False), st.integers(-60, 60))
def test_order_sign_and_scale_do_not_matter(numbers, rng, exponent):
    values = [number / 100 for number in numbers]
    p = sign_flip_p(values)
    shuffled = rng.sample(values, len(values))
    assert sign_flip_p(shuffled) == p
    assert sign_flip_p([-value for value in values]) == p
    assert sign_flip_p([value * 10.0**exponent for value in values]) == p
    assert smallest_p(len(values)) <= p <= 1


def test_extremes():
    assert sign_flip_p([0.0, 0.0]) == 1
    assert sign_flip_p([0.2, -0.2]) == 1
    assert sign_flip_p([1e308] * 6) == 2 / 64 == smallest_p(6)
    assert sign_flip_p([5e-324] * 5) == smallest_p(5) == 0.0625
    assert paired_difference([0.4], [0.3]).std is None
    assert paired_difference([0.4], [0.3]).p == 1


@pytest.mark.parametrize("bad", [[], [math.nan, 1.0], [math.inf], [0.1] * (MOST_PAIRS + 1)])
def test_what_cannot_be_tested_is_an_error(bad):
    with pytest.raises(ValueError, match=r"differences|finite"):
        sign_flip_p(bad)


def test_pairs_must_be_pairs():
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([1.0, 2.0], [1.0])


@given(st.lists(st.floats(0, 1), max_size=6), st.randoms(use_true_random=False))
def test_holm_by_its_definition(values, rng):
    """Adjusted p of the k-th smallest: the largest (m - j) p_j so far, at most 1."""
    found = holm(values)
    ordered = sorted(values)
    for value, adjusted in zip(values, found, strict=True):
        rank = max(i for i, other in enumerate(ordered) if other == value)
        terms = [(len(values) - j) * ordered[j] for j in range(rank + 1)]
        assert adjusted == min(1.0, max(terms))
        assert adjusted >= value
    order = list(range(len(values)))
    rng.shuffle(order)
    assert holm([values[i] for i in order]) == [found[i] for i in order]
    if len(values) == 1:
        assert found == values


def test_holm_refuses_what_is_no_p_value():
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"0\.\.1"):
            holm([0.5, bad])
