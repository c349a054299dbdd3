"""Authenticity scores against loops, scikit-learn and hand-made sets."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from artifactnet.metrics.authenticity import AuthenticityMetric, Confusion, auc, confusion
from artifactnet.metrics.confusion import verdict_scores
from artifactnet.types import ArtifactNetError

# Few distinct values, so that ties and hits on the threshold are common.
answers = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 0.75, 1.0])),
    min_size=1,
    max_size=40,
)


def tensors(pairs):
    labels, probabilities = zip(*pairs, strict=True)
    return torch.tensor(labels), torch.tensor(probabilities, dtype=torch.float64)


@given(pairs=answers, threshold=st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0]))
def test_confusion_by_loops(pairs, threshold):
    tp = fp = tn = fn = 0
    for label, probability in pairs:
        if probability >= threshold:
            tp, fp = tp + (label == 1), fp + (label == 0)
        else:
            tn, fn = tn + (label == 0), fn + (label == 1)
    assert confusion(*tensors(pairs), threshold) == Confusion(tp, fp, tn, fn)


@given(pairs=answers)
def test_scores_match_scikit_learn(pairs):
    labels, probabilities = tensors(pairs)
    found = verdict_scores(*confusion(labels, probabilities, 0.5))
    truth, called = labels.numpy(), (probabilities >= 0.5).numpy().astype(int)
    options = {"zero_division": 0.0}
    assert math.isclose(found["precision"], sk.precision_score(truth, called, **options))
    assert math.isclose(found["recall"], sk.recall_score(truth, called, **options))
    assert math.isclose(found["f1"], sk.f1_score(truth, called, **options))
    real = sk.recall_score(truth, called, pos_label=0, **options)
    assert math.isclose(found["real_accuracy"], real)
    assert found["fake_accuracy"] == found["recall"]
    if len(set(truth)) == 2:
        expected = sk.balanced_accuracy_score(truth, called)
        assert math.isclose(found["balanced_accuracy"], expected)
        assert found["note"] == ""
    assert found["real"] + found["fake"] == len(pairs)
    json.dumps(found, allow_nan=False)


def test_scores_by_hand():
    found = verdict_scores(tp=3, fp=1, tn=4, fn=2)
    assert found["real_accuracy"] == 0.8
    assert found["fake_accuracy"] == 0.6
    assert found["balanced_accuracy"] == pytest.approx(0.7)
    assert found["precision"] == 0.75
    assert found["f1"] == pytest.approx(6 / 9)
    assert (found["real"], found["fake"]) == (5, 5)


@pytest.mark.parametrize(
    ("counts", "balanced", "note"),
    [
        ((3, 0, 0, 1), 0.75, "only fake"),
        ((0, 1, 4, 0), 0.8, "only real"),
        ((0, 0, 0, 0), 0.0, "no images"),
    ],
)
def test_a_missing_class_is_said(counts, balanced, note):
    found = verdict_scores(*counts)
    assert found["balanced_accuracy"] == balanced
    assert found["note"].startswith(note)


@settings(deadline=None)
@given(pairs=answers)
def test_auc_counts_pairs(pairs):
    labels, probabilities = tensors(pairs)
    fakes = [p for label, p in pairs if label == 1]
    reals = [p for label, p in pairs if label == 0]
    wins = [1.0 if f > r else 0.5 if f == r else 0.0 for f in fakes for r in reals]
    found = auc(labels, probabilities)
    if not wins:
        assert found is None
    else:
        assert found is not None
        assert math.isclose(found, sum(wins) / len(wins), rel_tol=1e-12)
        assert math.isclose(found, sk.roc_auc_score(labels, probabilities), rel_tol=1e-9)


def test_float32_probabilities_meet_the_threshold_as_a_prediction_does():
    """``Prediction.is_fake`` compares Python floats; float32(0.7) is just below 0.7."""
    probability = torch.tensor([0.7], dtype=torch.float32)
    is_fake = float(probability[0]) >= 0.7
    assert confusion(torch.tensor([1]), probability, 0.7).tp == int(is_fake)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.01, 1.01])
def test_what_is_not_a_probability_is_not_counted_as_real(bad):
    labels, probabilities = torch.tensor([0, 1]), torch.tensor([0.5, bad])
    metric = AuthenticityMetric(["gan"])
    for call in (
        lambda: confusion(labels, probabilities, 0.5),
        lambda: auc(labels, probabilities),
        lambda: metric.update(probabilities, labels, ["real", "gan"]),
    ):
        with pytest.raises(ArtifactNetError, match="1 of 2 probabilities"):
            call()


def test_wrong_shapes_and_labels_are_refused():
    with pytest.raises(ValueError, match="equally many"):
        confusion(torch.tensor([0, 1]), torch.tensor([0.5]), 0.5)
    with pytest.raises(ValueError, match="equally many"):
        auc(torch.tensor([[1]]), torch.tensor([[0.5]]))
    with pytest.raises(ValueError, match=r"0 \(real\) or 1"):
        confusion(torch.tensor([2]), torch.tensor([0.5]), 0.5)


def fill(metric, labels, probabilities, names, size):
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        metric.update(probabilities[part], labels[part], names[part])
    return metric.compute()


def test_each_generator_is_set_against_all_real_images():
    rng = np.random.default_rng(0)
    names = rng.choice(["real", "sd", "gan", "flow"], 200).tolist()
    labels = torch.tensor([int(name != "real") for name in names]).float()
    probabilities = torch.from_numpy(rng.random(200).round(2)).float()
    metric = AuthenticityMetric(["gan", "sd", "real", "flow", "absent"], threshold=0.4)
    found = fill(metric, labels, probabilities, names, size=16)
    assert list(found) == ["all", "gan", "sd", "flow"]
    for row, result in found.items():
        kept = [i for i, name in enumerate(names) if row == "all" or name in (row, "real")]
        truth = [int(labels[i]) for i in kept]
        values = [float(probabilities[i]) for i in kept]
        called = [int(value >= 0.4) for value in values]
        assert result["real"] == names.count("real")
        assert result["fake"] == sum(truth)
        assert math.isclose(result["balanced_accuracy"], sk.balanced_accuracy_score(truth, called))
        assert math.isclose(result["f1"], sk.f1_score(truth, called))
        assert math.isclose(result["auc"], sk.roc_auc_score(truth, values), rel_tol=1e-9)
    json.dumps(found, allow_nan=False)


def test_the_metric_does_not_depend_on_batches_and_starts_anew():
    labels = torch.tensor([0, 1, 1, 0, 1])
    probabilities = torch.tensor([0.2, 0.9, 0.4, 0.6, 0.5])
    names = ["real", "a", "b", "real", "a"]
    metric = AuthenticityMetric(["a", "b"])
    first = fill(metric, labels, probabilities, names, size=1)
    metric.reset()
    assert fill(metric, labels, probabilities, names, size=5) == first
    metric.reset()
    metric.update(probabilities[:1], labels[:1], names[:1])
    assert metric.compute()["all"]["note"].startswith("only real")
    assert list(metric.compute()) == ["all"]


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_an_empty_set_has_a_result():
    found = AuthenticityMetric(["a"]).compute()
    assert found["all"]["note"] == "no images"
    assert found["all"]["auc"] is None


def test_an_unnamed_generator_is_refused():
    metric = AuthenticityMetric(["a", "b"])
    with pytest.raises(ValueError, match=r"\['c'\] are not among \['a', 'b'\]"):
        metric.update(torch.tensor([0.5]), torch.tensor([1]), ["c"])
    with pytest.raises(ValueError):
        metric.update(torch.tensor([0.5]), torch.tensor([1]), ["a", "b"])
