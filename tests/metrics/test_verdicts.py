"""Limits of three verdicts against brute force, and their counts against loops."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from artifactnet.metrics.verdicts import (
    VerdictMetric,
    allowed_errors,
    choose_limits,
    images_needed,
    verdict_indices,
)
from artifactnet.types import ArtifactNetError, is_uncertain, verdict_of

# coarse, so that most probabilities are tied, within a class and between both; or fine
CHANCES = st.one_of(st.integers(1, 19).map(lambda n: n / 20), st.floats(0.001, 0.999))


@st.composite
def questions(draw):
    """Answers of enough images of both classes for two rates."""
    rates = [draw(st.sampled_from([0.1, 0.2, 0.25, 1 / 3, 0.5])) for _ in range(2)]
    answers = []
    for label, rate in enumerate(rates):
        least = math.ceil(1 / rate)
        chances = draw(st.lists(CHANCES, min_size=least, max_size=least + 15))
        answers += [(label, chance) for chance in chances]
    return answers, *rates


def by_force(answers, false_alarms, missed):
    """Limits from every gap between two probabilities, with the rates counted by loops."""
    values = sorted({0.0, 1.0, *(p for _, p in answers)})
    gaps = list(pairwise(values))
    real = [p for y, p in answers if not y]
    fake = [p for y, p in answers if y]

    def alarms(limit):
        return sum(p >= limit for p in real) / len(real)

    def misses(limit):
        return sum(p < limit for p in fake) / len(fake)

    # all limits in (low, high] judge alike
    fake_gap = min(gap for gap in gaps if alarms(gap[1]) <= false_alarms)
    real_gap = max(gap for gap in gaps if misses(gap[1]) <= missed)
    return real_gap, fake_gap, alarms, misses


@settings(deadline=None, max_examples=300)
@given(questions())
def test_limits_by_brute_force(question):
    answers, false_alarms, missed = question
    labels = [y for y, _ in answers]
    real_below, fake_from = choose_limits(labels, [p for _, p in answers], false_alarms, missed)
    real_gap, fake_gap, alarms, misses = by_force(answers, false_alarms, missed)
    assert fake_gap[0] < fake_from <= fake_gap[1]
    if real_below < fake_from:
        assert real_gap[0] < real_below <= real_gap[1]
    else:
        assert real_below == fake_from
        assert real_gap[1] >= fake_from
    assert 0 < real_below <= fake_from <= 1
    assert alarms(fake_from) <= false_alarms
    assert misses(real_below) <= missed


def test_a_worked_example():
    """Ten photographs, one may be wrong; four fakes, one may be missed."""
    real = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.7, 0.9]
    fake = [0.2, 0.6, 0.8, 0.95]
    limits = choose_limits([0] * 10 + [1] * 4, real + fake, 0.1, 0.25)
    assert limits == (0.5, 0.75)  # between 0.4 and 0.6, and between 0.7 and 0.8


def test_tied_photographs_are_all_called_real():
    """Two of four share the highest probability; one alone may be wrong."""
    _, fake_from = choose_limits([0, 0, 0, 0, 1, 1], [0.1, 0.2, 0.6, 0.6, 0.8, 0.9], 0.25, 0.5)
    assert 0.6 < fake_from < 0.8


def test_classes_that_do_not_overlap_leave_nothing_uncertain():
    low, high = choose_limits([0] * 10 + [1] * 10, [*np.arange(10) / 20, *[0.9] * 10], 0.1, 0.1)
    assert low == high
    assert 0.4 < low < 0.45


def test_too_few_images_are_counted():
    labels = [0] * 33 + [1] * 9
    chances = [0.1] * 33 + [0.9] * 9
    with pytest.raises(ArtifactNetError, match=r"33 photographs are too few .* at least 34 are"):
        choose_limits(labels, chances, 0.03, 0.2)
    with pytest.raises(ArtifactNetError, match=r"9 fakes are too few .* at least 10 are"):
        choose_limits(labels, chances, 0.1, 0.1)


@settings(deadline=None)
@given(st.integers(1, 2000), st.floats(0.001, 0.9))
@example(10, 0.8999999999999999)  # times 10 it is rounded up to 9
def test_counts_for_a_rate(count, rate):
    allowed = allowed_errors(count, rate)
    assert allowed / count <= rate < (allowed + 1) / count
    needed = images_needed(rate)
    assert 1 / needed <= rate
    assert needed == 1 or 1 / (needed - 1) > rate


def test_probabilities_of_exactly_one_are_refused():
    chances = [1.0, 1.0, 0.2, 0.1, 0.9, 0.8]
    with pytest.raises(ArtifactNetError, match=r"more than 1 of 4 photographs .* exactly 1:"):
        choose_limits([0, 0, 0, 0, 1, 1], chances, 0.25, 0.5)
    with pytest.raises(ArtifactNetError, match=r"more than 1 of 2 fakes .* exactly 0:"):
        choose_limits([0, 0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.0, 0.0], 0.25, 0.5)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_impossible_rates(rate):
    with pytest.raises(ValueError, match="rate"):
        choose_limits([0, 1], [0.1, 0.9], rate, 0.5)


def test_metric_by_loops():
    rng = np.random.default_rng(0)
    limits = (0.3, 0.7)
    metric = VerdictMetric(["real", "a", "b", "never"], limits)
    rows = {name: dict.fromkeys(("fake", "uncertain", "real"), 0) for name in ("real", "a", "b")}
    for _ in range(4):
        labels = torch.tensor(rng.integers(0, 2, 25))
        chances = torch.tensor(rng.choice([0.0, 0.29, 0.3, 0.5, 0.7, 1.0], 25))
        names = [str(rng.choice(["a", "b"])) if y else "real" for y in labels.tolist()]
        metric.update(chances, labels, names)
        for name, p in zip(names, chances.tolist(), strict=True):
            rows[name][verdict_of(p >= 0.5, is_uncertain(p, limits))] += 1
    found = metric.compute()
    assert (found["real_below"], found["fake_from"]) == limits
    both = {verdict: rows["a"][verdict] + rows["b"][verdict] for verdict in rows["a"]}
    pairs = [(found["real"], rows["real"]), (found["fake"], both)]
    pairs += [(found["generators"][name], rows[name]) for name in ("a", "b")]
    for share, counts in pairs:
        total = sum(counts.values())
        assert share == {"images": total} | {k: n / total for k, n in counts.items()}
    assert set(found["generators"]) == {"a", "b"}


def test_float32_probabilities_are_compared_as_doubles():
    """As `Prediction`: float32(0.7) is just below 0.7."""
    assert verdict_indices(torch.tensor([0.7], dtype=torch.float32), (0.3, 0.7)).tolist() == [1]
    assert is_uncertain(float(torch.tensor(0.7, dtype=torch.float32)), (0.3, 0.7))


def test_a_class_without_images_has_no_shares():
    metric = VerdictMetric(["a"], (0.3, 0.7))
    metric.update(torch.tensor([0.9]), torch.tensor([1]), ["a"])
    found = metric.compute()
    assert found["real"] == {"images": 0, "fake": None, "uncertain": None, "real": None}
    assert found["fake"]["fake"] == 1
