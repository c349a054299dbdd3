"""Figures of answers Yes or No."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.metrics.ranking import auc
from artifactnet.metrics.yes_no import mean_scores, yes_no_scores

Y, N = True, False


def test_worked_example():
    found = yes_no_scores([Y, Y, N, N, Y], [Y, N, Y, N, None], [None] * 5)
    assert found.accuracy == pytest.approx(0.4)
    assert found.precision == pytest.approx(0.5)
    assert found.recall == pytest.approx(1 / 3)
    assert found.f1 == pytest.approx(0.4)
    assert (found.answers, found.unreadable, found.scored) == (5, 1, 0)
    assert found.yes == pytest.approx(0.6)
    assert found.auc is None


def test_worked_example_of_the_area():
    assert auc([Y, Y, Y, N, N], [0.9, 0.6, 0.5, 0.6, 0.2]) == pytest.approx(0.75)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=60))
def test_the_area_is_that_of_scikit_learn(rows):
    from sklearn.metrics import roc_auc_score

    truth, scores = [row[0] for row in rows], [row[1] / 6 for row in rows]
    if len(set(truth)) < 2:
        assert auc(truth, scores) is None
    else:
        assert auc(truth, scores) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_figures_are_those_of_scikit_learn():
    from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

    draw = random.Random(0)
    truth = [draw.random() < 0.3 for _ in range(500)]
    said = [draw.random() < 0.4 for _ in range(500)]
    found = yes_no_scores(truth, said, [None] * 500)
    for value, score in (
        (found.accuracy, accuracy_score),
        (found.precision, precision_score),
        (found.recall, recall_score),
        (found.f1, f1_score),
    ):
        assert value == pytest.approx(score(truth, said))


def test_nothing_to_divide_is_zero():
    found = yes_no_scores([N, N], [N, N], [0.1, 0.2])
    assert (found.accuracy, found.precision, found.recall, found.f1) == (1.0, 0.0, 0.0, 0.0)
    assert found.auc is None
    assert yes_no_scores([], [], []).accuracy == 0.0


def test_answers_without_a_score_are_left_out_of_the_area():
    found = yes_no_scores([Y, N, Y], [Y, N, Y], [0.9, 0.1, None])
    assert (found.auc, found.scored) == (1.0, 2)


def test_the_mean_needs_every_area():
    one = yes_no_scores([Y, N], [Y, N], [0.9, 0.1])
    two = yes_no_scores([Y, N], [N, N], [0.1, 0.9])
    assert mean_scores([one, two]) == {
        **{"accuracy": 0.75, "precision": 0.5, "recall": 0.5, "f1": 0.5, "auc": 0.5}
    }
    assert mean_scores([one, yes_no_scores([Y], [Y], [0.5])])["auc"] is None


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="equally many"):
        yes_no_scores([Y], [], [])
    with pytest.raises(ValueError, match="NaN"):
        auc([Y, N], [float("nan"), 1])
