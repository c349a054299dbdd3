"""Correlations of scores against scipy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from artifactnet.metrics.correlation import ScoreCorrelationMetric, plcc, srcc
from artifactnet.types import ArtifactNetError

# few values, so that ties are common
scores = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=30)


@settings(max_examples=40, deadline=None)
@given(scores)
def test_equal_to_scipy(pairs):
    x, y = (np.array(part) / 7 for part in zip(*pairs, strict=True))
    found = [measure(*(torch.from_numpy(part) for part in (x, y))) for measure in (plcc, srcc)]
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert found == [None, None]
        return
    expected = stats.pearsonr(x, y).statistic, stats.spearmanr(x, y).statistic
    assert found == pytest.approx(expected, abs=1e-9)


def test_ranks_ignore_the_scale():
    x = torch.linspace(0.1, 1, 9)
    assert srcc(x, x**9) == pytest.approx(1)
    assert srcc(x, -(x**9)) == pytest.approx(-1)
    assert 0.5 < plcc(x, x**9) < 0.9
    for few in (x[:0], x[:1]):
        assert plcc(few, few) is None
        assert srcc(few, few) is None


def test_differences_far_below_the_mean_are_seen():
    x = torch.tensor([0.5, 0.5 + 1e-15, 0.5 - 1e-15], dtype=torch.float64)
    assert plcc(x, torch.tensor([0.0, 1.0, -1.0])) == pytest.approx(1, abs=1e-2)
    tiny = torch.tensor([1e-200, 2e-200, 3e-200], dtype=torch.float64)
    assert plcc(tiny, torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(1, abs=1e-9)


def test_bad_scores_are_refused():
    good, bad = torch.rand(3), torch.tensor([0.1, math.nan, 0.3])
    for measure in (plcc, srcc):
        with pytest.raises(ArtifactNetError, match="predicted score is not finite"):
            measure(bad, good)
        with pytest.raises(ValueError, match="true score"):
            measure(good, bad)
        for wrong in (good[:2], good[None]):
            with pytest.raises(ValueError, match="equally many"):
                measure(wrong, good)


def test_metric_leaves_out_images_without_a_score():
    rng = np.random.default_rng(0)
    predicted, true = rng.random(20).astype(np.float32), rng.random(20).astype(np.float32)
    true[[3, 4, 11]] = math.nan
    predicted[4] = math.nan  # not evaluated
    metric = ScoreCorrelationMetric()
    for part in (slice(0, 3), slice(3, 5), slice(5, 20)):
        metric.update(torch.from_numpy(predicted[part]), torch.from_numpy(true[part]))
    scored = ~np.isnan(true)
    x, y = (part[scored].astype(np.float64) for part in (predicted, true))
    result = metric.compute()
    assert result["images"] == len(x) == 17
    assert result["PLCC"] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
    assert result["SRCC"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    with pytest.raises(ArtifactNetError, match="not finite"):
        metric.update(torch.tensor([math.inf]), torch.tensor([0.5]))
    metric.reset()
    metric.update(torch.rand(2), torch.full((2,), math.nan))
    assert metric.compute() == {"PLCC": None, "SRCC": None, "images": 0}
