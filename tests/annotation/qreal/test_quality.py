"""Quality by levels: the worked example, bounds, and what is logged."""

import numpy as np
import pytest
from qreal_stubs import StubScorer

from artifactnet.annotation.qreal.quality import level_quality, read_quality, score


def test_the_worked_example():
    assert level_quality([1, 2, 0.5, -1, -2]) == pytest.approx(0.748528, abs=5e-7)


@pytest.mark.parametrize("seed", range(20))
def test_against_the_definition(seed):
    logits = np.random.default_rng(seed).normal(0, 3, 5)
    powers = np.exp(logits)
    expected = (powers / powers.sum() * np.array([1, 0.75, 0.5, 0.25, 0])).sum()
    assert level_quality(list(logits)) == pytest.approx(expected, abs=1e-12)


def test_extremes_do_not_overflow():
    assert level_quality([5000, 0, 0, 0, 0]) == 1
    assert level_quality([0, 0, 0, 0, 5000]) == 0
    assert level_quality([-5000] * 5) == pytest.approx(0.5)


def test_what_is_logged_is_read_again():
    crop = np.arange(5 * 5 * 3, dtype=np.uint8).reshape(5, 5, 3)
    logits = [0.0, 0.01, 0.02, 0.18, 0.19]
    assert read_quality(score(StubScorer(), crop)) == round(level_quality(logits), 4)
