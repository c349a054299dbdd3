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


@settings(deadline=None, max_examples=50)
@given(pairs(), st.integers(0, 3))
def test_they_see_the_image_from_any_side_and_no_stretching(pair, turns):
    heatmap, mask = pair
    turned = np.rot90(heatmap, turns), np.rot90(mask, turns)
    stretched = heatmap * 4, mask
    for score in ALL:
        assert score(*turned) == pytest.approx(score(*pair), abs=1e-14)
        assert score(*stretched) == pytest.approx(score(*pair), abs=1e-14)


@pytest.mark.parametrize("value", [0.25, 1.0, 1e-300, 1e300])
def test_constant_maps_and_masks(value):
    mask = np.zeros((8, 5), bool)
    mask[:2] = True
    for score in ALL:
        assert score(np.full((8, 5), value), mask) == pytest.approx(0.25)  # as chance
    assert mass_inside(np.zeros((8, 5)), mask) == 0
    heatmap = np.array([[0.1, 0.7]])
    for full in (np.zeros((1, 2), np.uint8), np.ones((1, 2), np.uint8)):
        assert pixel_average_precision(heatmap, full) is None
        assert pointing_game(heatmap, full) == mass_inside(heatmap, full) == full[0, 0]


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
    if score is mass_inside:
        with pytest.raises(ValueError, match="negative"):
            score(-mask.astype(float), mask)
