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


@pytest.mark.parametrize(
    ("counts", "balanced", "note"),
    [
        ((3, 1, 4, 2), 0.7, ""),
        ((3, 0, 0, 1), 0.75, "only fake"),
        ((0, 1, 4, 0), 0.8, "only real"),
        ((0, 0, 0, 0), 0.0, "no images"),
    ],
)
def test_balanced_accuracy_also_where_a_class_is_missing(counts, balanced, note):
    scores = verdict_scores(*counts)
    assert scores["balanced_accuracy"] == pytest.approx(balanced)
    assert scores["note"].startswith(note)


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
    metric = AuthenticityMetric(["a", "b"])
    for call in (
        lambda: confusion(labels, probabilities, 0.5),
        lambda: auc(labels, probabilities),
        lambda: metric.update(probabilities, labels, ["real", "a"]),
    ):
        with pytest.raises(ArtifactNetError, match="1 of 2 probabilities"):
            call()


def test_wrong_shapes_labels_and_generators_are_refused():
    one, half = torch.tensor([1]), torch.tensor([0.5])
    for labels, probabilities in ((torch.tensor([0, 1]), half), (one[None], half[None])):
        with pytest.raises(ValueError, match="equally many"):
            auc(labels, probabilities)
    with pytest.raises(ValueError, match=r"0 \(real\) or 1"):
        confusion(2 * one, half, 0.5)
    metric = AuthenticityMetric(["a", "b"])
    with pytest.raises(ValueError, match=r"\['c'\] are not among \['a', 'b'\]"):
        metric.update(half, one, ["c"])
    with pytest.raises(ValueError):
        metric.update(half, one, ["a", "b"])


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_each_generator_is_compared_with_all_real_images():
    rng = np.random.default_rng(0)
    names = rng.choice(["real", "sd", "gan", "flow"], 200).tolist()
    labels = torch.tensor([int(name != "real") for name in names]).float()
    probabilities = torch.from_numpy(rng.random(200).round(2)).float()
    metric = AuthenticityMetric(["gan", "sd", "real", "flow", "absent"], threshold=0.4)
    assert metric.compute()["all"]["auc"] is None
    for size in (200, 16):
        metric.reset()
        for start in range(0, 200, size):
            part = slice(start, start + size)
            metric.update(probabilities[part], labels[part], names[part])
        results = metric.compute()
        assert list(results) == ["all", "gan", "sd", "flow"]
        for row, result in results.items():
            kept = [i for i, name in enumerate(names) if row == "all" or name in (row, "real")]
            truth = [int(labels[i]) for i in kept]
            values = [float(probabilities[i]) for i in kept]
            called = [int(value >= 0.4) for value in values]
            assert (result["real"], result["fake"]) == (names.count("real"), sum(truth))
            accuracy = sk.balanced_accuracy_score(truth, called)
            assert math.isclose(result["balanced_accuracy"], accuracy)
            assert math.isclose(result["f1"], sk.f1_score(truth, called))
            assert math.isclose(result["auc"], sk.roc_auc_score(truth, values), rel_tol=1e-9)
    json.dumps(results, allow_nan=False)
