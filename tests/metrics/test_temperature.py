"""Temperature scaling against known temperatures, a fine grid and loops in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from artifactnet.metrics.temperature import fit_temperature, negative_log_likelihood
from artifactnet.types import ArtifactNetError

ANSWERS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(-40, 40).map(lambda n: n / 4)), min_size=2, max_size=30
)


def split(answers):
    return [label for label, _ in answers], [logit for _, logit in answers]


def loss_by_loops(answers, temperature):
    """Mean of the two classes' mean losses."""
    losses = {0: [], 1: []}
    for label, logit in answers:
        chance = 1 / (1 + math.exp(-logit / temperature))
        losses[label].append(-math.log(chance if label else 1 - chance))
    return sum(math.fsum(x) / len(x) for x in losses.values()) / 2


def calibrated_sample(count, temperature, seed):
    """Logits whose sigmoid is the chance of a fake among equally many of both, times T."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    # two normals of variance s and means +-s/2: their log-odds are the value itself
    values = np.where(labels, 2.0, -2.0) + 2.0 * rng.standard_normal(count)
    return labels, values * temperature


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_a_known_temperature_is_recovered(temperature):
    labels, logits = calibrated_sample(40_000, temperature, seed=3)
    assert fit_temperature(labels, logits) == pytest.approx(temperature, rel=0.03)


def test_shares_of_the_classes_do_not_matter():
    labels, logits = calibrated_sample(4_000, 2.0, seed=5)
    few = np.concatenate([np.flatnonzero(labels == 1), np.repeat(np.flatnonzero(labels == 0), 9)])
    assert fit_temperature(labels[few], logits[few]) == pytest.approx(
        fit_temperature(labels, logits), rel=1e-9
    )
    assert negative_log_likelihood(labels[few], logits[few]) == pytest.approx(
        negative_log_likelihood(labels, logits), rel=1e-9
    )


def test_a_worked_example():
    """Fakes at 2, 2, 2, -2, photographs at -2: both classes' chance of being right is 7/8."""
    found = fit_temperature([1, 1, 1, 1, 0, 0, 0, 0], [2, 2, 2, -2, -2, -2, -2, -2])
    assert found == pytest.approx(2 / math.log(7), rel=1e-9)


@settings(deadline=None, max_examples=150)
@given(ANSWERS)
def test_no_other_temperature_is_better(answers):
    labels, logits = split(answers)
    assume(0 < sum(labels) < len(labels))
    means = [np.mean([z for y, z in answers if y == label]) for label in (0, 1)]
    assume(not math.isclose(means[0], means[1]))
    if means[1] < means[0]:
        with pytest.raises(ArtifactNetError, match="does not tell them apart"):
            fit_temperature(labels, logits)
        return
    found = fit_temperature(labels, logits)
    if all((z >= 0) if y else (z <= 0) for y, z in answers):
        assert found is None
        return
    best = loss_by_loops(answers, found)
    assert negative_log_likelihood(labels, np.array(logits) / found) == pytest.approx(best)
    for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2.0):
        if found * factor > 0.02:  # else the loop overflows
            assert best <= loss_by_loops(answers, found * factor) + 1e-12
    assert best <= math.log(2) + 1e-12


@pytest.mark.parametrize(
    ("labels", "logits"),
    [([1, 0], [1.0]), ([1, 1], [1.0, 2.0]), ([1, 2], [1.0, 2.0]), ([1, 0], [1.0, float("nan")])],
)
def test_impossible_arguments(labels, logits):
    with pytest.raises(ValueError, match="logits|labels"):
        fit_temperature(labels, logits)


def test_equal_logits_are_refused():
    with pytest.raises(ArtifactNetError, match=r"\(0\) is not above .* \(0\)"):
        fit_temperature([1, 0], [0.0, 0.0])
