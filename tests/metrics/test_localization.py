"""Threshold-free scores of a heatmap against loops and scikit-learn."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.metrics.localization import mass_inside, pixel_average_precision, pointing_game

ALL = (pointing_game, mass_inside, pixel_average_precision)


@st.composite
def pairs(draw):
    """A map with many equal values, and a mask of any kind."""
    size = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    levels = draw(st.integers(1, 12))
    heatmap = (rng.integers(0, levels, size) / 16).astype(np.float32)
    mask = (rng.random(size) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))).astype(np.uint8)
    return heatmap, mask * rng.choice([1, 2, 128], size).astype(np.uint8)


def cells(heatmap, mask):
    height, width = mask.shape
    return [
        (Fraction(float(heatmap[y, x])), bool(mask[y, x]))
        for y in range(height)
        for x in range(width)
    ]


def precision_by_loops(heatmap, mask):
    """The definition in exact fractions: threshold by threshold."""
    listed = cells(heatmap, mask)
    artifacts = sum(inside for _, inside in listed)
    if artifacts in (0, len(listed)):
        return None
    area, recall = Fraction(0), Fraction(0)
    for threshold in sorted({value for value, _ in listed}, reverse=True):
        called = [inside for value, inside in listed if value >= threshold]
        reached = Fraction(sum(called), artifacts)
        area += (reached - recall) * Fraction(sum(called), len(called))
        recall = reached
    return float(area)


@settings(deadline=None, max_examples=200)
@given(pairs())
def test_all_by_loops(pair):
    listed = cells(*pair)
    top = max(value for value, _ in listed)
    peaks = [inside for value, inside in listed if value == top]
    assert pointing_game(*pair) == pytest.approx(sum(peaks) / len(peaks), abs=1e-15)
    total = sum(value for value, _ in listed)
    within = sum(value for value, inside in listed if inside)
    assert mass_inside(*pair) == pytest.approx(float(within / total) if total else 0, abs=1e-15)
    expected = precision_by_loops(*pair)
    found = pixel_average_precision(*pair)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-14))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [3, 40, 10**9])
def test_average_precision_is_that_of_scikit_learn(seed, levels):
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(seed)
    heatmap = rng.integers(0, levels, (50, 70)) / levels
    mask = rng.random((50, 70)) < heatmap * 0.3
    expected = average_precision_score(mask.ravel(), heatmap.ravel())
    assert pixel_average_precision(heatmap, mask) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(pairs(), st.integers(0, 3))
def test_they_see_the_image_from_any_side_and_no_stretching(pair, turns):
    heatmap, mask = pair
    turned = np.rot90(heatmap, turns), np.rot90(mask, turns)
    stretched = heatmap * 4, mask
    for score in ALL:
        assert score(*turned) == pytest.approx(score(*pair), abs=1e-14)
        assert score(*stretched) == pytest.approx(score(*pair), abs=1e-14)


def test_a_perfect_and_an_inverted_map():
    mask = np.zeros((4, 5), np.uint8)
    mask[1:3, 1:3] = 2
    perfect = (mask != 0).astype(np.float32)
    assert [score(perfect, mask) for score in ALL] == [1, 1, 1]
    inverted = 1 - perfect
    assert pointing_game(inverted, mask) == mass_inside(inverted, mask) == 0
    assert pixel_average_precision(inverted, mask) == pytest.approx(4 / 20)  # found last, at once


@pytest.mark.parametrize("value", [0.25, 1.0, 1e-300, 1e300])
def test_a_constant_map_earns_what_chance_earns(value):
    mask = np.zeros((8, 5), bool)
    mask[:2] = True
    for score in ALL:
        assert score(np.full((8, 5), value), mask) == pytest.approx(0.25)


def test_an_all_zero_map_has_no_mass():
    mask = np.eye(3, dtype=np.uint8)
    assert mass_inside(np.zeros((3, 3)), mask) == 0


@pytest.mark.parametrize(("mask", "expected"), [(0, 0), (1, 1)])
def test_masks_that_leave_nothing_to_tell_apart(mask, expected):
    heatmap = np.array([[0.1, 0.7]])
    full = np.full((1, 2), mask, np.uint8)
    assert pixel_average_precision(heatmap, full) is None
    assert pointing_game(heatmap, full) == mass_inside(heatmap, full) == expected


def test_two_maxima_share_the_point():
    assert pointing_game(np.array([[1.0, 0.2, 1.0, 1.0]]), np.array([[4, 4, 0, 0]])) == (
        pytest.approx(1 / 3)
    )


@pytest.mark.parametrize("score", ALL)
def test_what_cannot_be_scored_is_refused(score):
    mask = np.ones((2, 2), np.uint8)
    for bad in (np.ones((2, 3)), np.ones(4)):
        with pytest.raises(ValueError, match="one size"):
            score(bad, mask)
    with pytest.raises(ValueError, match="one size"):
        score(np.ones((0, 2)), np.ones((0, 2)))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            score(np.array([[0.0, bad], [1.0, 1.0]]), mask)


def test_negative_values_have_no_mass():
    with pytest.raises(ValueError, match="negative"):
        mass_inside(np.array([[-0.1, 1.0]]), np.array([[1, 0]]))


def test_a_million_pixels_do_not_take_a_loop():
    rng = np.random.default_rng(0)
    heatmap = rng.random((1000, 1000), dtype=np.float32)
    mask = heatmap > rng.random((1000, 1000))
    assert pixel_average_precision(heatmap, mask) == pytest.approx(5 / 6, abs=5e-3)
    assert mass_inside(heatmap, mask) == pytest.approx(2 / 3, abs=5e-3)
