"""Reliability, calibration error and ROC against loops and scikit-learn."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.metrics.authenticity import auc
from artifactnet.metrics.calibration import expected_calibration_error, reliability, roc_curve
from artifactnet.types import ArtifactNetError

ALL = (reliability, expected_calibration_error, roc_curve)
# many equal probabilities, limits of bins and both ends among them
ANSWERS = st.lists(
    st.tuples(
        st.integers(0, 1), st.one_of(st.integers(0, 20).map(lambda n: n / 20), st.floats(0, 1))
    ),
    max_size=40,
)


def split(answers):
    return [label for label, _ in answers], [chance for _, chance in answers]


def bins_by_loops(answers, bins):
    rows = []
    for k in range(bins):
        low, high = k / bins, (k + 1) / bins
        members = [(y, p) for y, p in answers if low <= p < high or (k == bins - 1 and p == 1)]
        n = len(members)
        confidence = math.fsum(p for _, p in members) / n if n else None
        fake = sum(label for label, _ in members) / n if n else None
        rows.append({"low": low, "high": high, "count": n, "confidence": confidence, "fake": fake})
    return rows


@settings(deadline=None, max_examples=150)
@given(ANSWERS, st.integers(1, 12))
def test_bins_by_loops(answers, bins):
    expected = bins_by_loops(answers, bins)
    rows = reliability(*split(answers), bins)
    for row, right in zip(rows, expected, strict=True):
        assert row == pytest.approx(right, abs=1e-12)
    assert sum(row["count"] for row in rows) == len(answers)
    json.dumps(rows, allow_nan=False)
    error = expected_calibration_error(*split(answers), bins)
    if not answers:
        assert error is None
        return
    gaps = [row["count"] * abs(row["confidence"] - row["fake"]) for row in expected if row["count"]]
    assert error == pytest.approx(sum(gaps) / len(answers), abs=1e-12)
    assert 0 <= error <= 1


def test_a_limit_belongs_to_the_upper_bin():
    """0.29 * 100 is 28.999..., yet 0.29 is the lower limit of the bin from 0.29."""
    for bins in (10, 100):
        for k in range(bins):
            counts = [row["count"] for row in reliability([1], [k / bins], bins)]
            assert counts.index(1) == k
    assert reliability([1], [1.0], 10)[-1]["count"] == 1


def roc_by_loops(answers):
    fakes = sum(label for label, _ in answers)
    reals = len(answers) - fakes
    if not fakes or not reals:
        return []
    points = [(0.0, 0.0, None)]
    for threshold in sorted({p for _, p in answers}, reverse=True):
        called = [label for label, p in answers if p >= threshold]
        points.append((called.count(0) / reals, called.count(1) / fakes, threshold))
    return points


@settings(deadline=None, max_examples=150)
@given(ANSWERS)
def test_roc_by_loops(answers):
    found = roc_curve(*split(answers))
    assert [tuple(point) for point in found] == roc_by_loops(answers)
    json.dumps(found, allow_nan=False)
    if found:
        area = sum((b.fpr - a.fpr) * (a.tpr + b.tpr) / 2 for a, b in pairwise(found))
        labels, chances = split(answers)
        exact = auc(torch.tensor(labels), torch.tensor(chances, dtype=torch.float64))
        assert area == pytest.approx(exact, abs=1e-12)


def test_roc_is_that_of_scikit_learn():
    import sklearn.metrics

    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400)
    chances = np.round(np.clip(0.3 * labels + 0.7 * rng.random(400), 0, 1), 2)
    fpr, tpr, thresholds = sklearn.metrics.roc_curve(labels, chances, drop_intermediate=False)
    found = roc_curve(labels, chances)
    assert [point.fpr for point in found] == pytest.approx(fpr.tolist())
    assert [point.tpr for point in found] == pytest.approx(tpr.tolist())
    assert [point.threshold for point in found[1:]] == thresholds[1:].tolist()


@settings(deadline=None, max_examples=100)
@given(ANSWERS, st.integers(2, 30))
def test_thinning_keeps_the_ends_and_invents_nothing(answers, points):
    everything = roc_curve(*split(answers))
    thin = roc_curve(*split(answers), points)
    assert len(thin) <= max(points, 0)
    assert set(thin) <= set(everything)
    assert thin == sorted(thin, key=lambda point: (point.fpr, point.tpr))
    if everything:
        assert (thin[0], thin[-1]) == (everything[0], everything[-1])
    if len(everything) <= points:
        assert thin == everything


def test_thinning_leaves_no_gap():
    """Along the curve, also where most probabilities crowd at one end of it."""
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 5000)
    chances = rng.random(10_000) ** np.where(labels, 0.05, 4)
    thin = roc_curve(labels, chances, 100)
    steps = np.diff([point.fpr + point.tpr for point in thin])
    assert 90 <= len(thin) <= 100
    assert steps.max() < 1.1 * 2 / 99


@pytest.mark.parametrize("score", ALL)
def test_what_cannot_be_scored_is_refused(score):
    for labels, chances in (([0, 1], [0.5]), ([[0]], [[0.5]]), (0, 0.5)):
        with pytest.raises(ValueError, match="equally many"):
            score(labels, chances)
    for strange in (2, 0.5, -1, math.nan):
        with pytest.raises(ValueError, match="0 \\(real\\) or 1"):
            score([strange], [0.5])
    for bad in (math.nan, 1.01, -0.01):
        with pytest.raises(ArtifactNetError, match="1 of 2 probabilities"):
            score([0, 1], [0.5, bad])
    with pytest.raises(ValueError, match="1 bin or more"):
        reliability([0], [0.5], 0)
    with pytest.raises(ValueError, match="2 points or more"):
        roc_curve([0, 1], [0.5, 0.5], 1)


@settings(deadline=None, max_examples=100)
@given(ANSWERS, st.integers(1, 12))
def test_balanced_error_is_that_of_equally_many_of_both(answers, bins):
    """Each class repeated as often as the other has images."""
    counts = {label: sum(y == label for y, _ in answers) for label in (0, 1)}
    if not min(counts.values()):
        expected = expected_calibration_error(*split(answers), bins)
    else:
        repeated = [pair for pair in answers for _ in range(counts[1 - pair[0]])]
        expected = expected_calibration_error(*split(repeated), bins)
    found = expected_calibration_error(*split(answers), bins, balanced=True)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-9))
