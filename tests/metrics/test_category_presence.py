"""Image-level presence of categories against loops and scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from artifactnet.metrics.category_presence import (
    PresenceMetric,
    categories_present,
    presence_counts,
    presence_scores,
)
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import Annotation

NONE, CLEAN, MASK = (int(state) for state in Annotation)


def answers(rng, count):
    return torch.from_numpy(rng.random((count, 7)) < rng.random(7))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 30))
def test_scores_equal_scikit_learn(seed, count):
    rng = np.random.default_rng(seed)
    predicted, truth = answers(rng, count), answers(rng, count)
    found = presence_scores(presence_counts(predicted, truth))
    expected = sk.precision_recall_fscore_support(
        truth.numpy(), predicted.numpy(), average=None, zero_division=0
    )
    for index, item in enumerate(CATEGORIES):
        row = found[item.label]
        np.testing.assert_allclose(
            [row["precision"], row["recall"], row["f1"]],
            [scores[index] for scores in expected[:3]],
            rtol=0,
            atol=1e-12,
        )
        assert row["tp"] + row["fp"] + row["fn"] + row["tn"] == count
    for key, scores in zip(("precision", "recall", "f1"), expected[:3], strict=True):
        assert abs(found["macro"][key] - np.mean(scores)) < 1e-12


def test_one_pixel_is_presence():
    mask = torch.zeros(3, 4, 5, dtype=torch.uint8)
    mask[0, 3, 4], mask[0, 0, 0], mask[1, 2, 2] = 2 | 64, 128, 1
    present = categories_present(mask)
    assert present.dtype == torch.bool
    assert [row.nonzero().flatten().tolist() for row in present] == [[0, 5, 6], [], []]
    assert categories_present(torch.zeros(0, 4, 5).byte()).shape == (0, 7)


def test_the_metric_takes_annotated_fakes_with_categories():
    truth = torch.zeros(6, 2, 2, dtype=torch.uint8)
    truth[0, 0, 0] = 2
    truth[4, 0, 0] = 1  # an artifact of no known category says nothing about any
    annotation = torch.tensor([MASK, CLEAN, NONE, CLEAN, MASK, MASK])
    labels = torch.tensor([1, 1, 1, 0, 1, 1])
    predicted = torch.zeros(6, 7).bool()
    predicted[:, 0] = True
    metric = PresenceMetric()
    metric.update(predicted[:4], truth[:4], annotation[:4], labels[:4])
    metric.update(predicted[4:], truth[4:], annotation[4:], labels[4:])
    row = metric.compute()[CATEGORIES[0].label]
    assert [row[key] for key in ("tp", "fp", "fn", "tn")] == [1, 2, 0, 0]
    assert metric.counts.dtype == torch.int64
    assert presence_scores(PresenceMetric().counts)["macro"]["f1"] == 0


def test_wrong_answers_are_refused():
    good = torch.zeros(2, 7).bool()
    eight = torch.zeros(2, 8).bool()
    for predicted, truth in (
        (good, good[:1]),
        (eight, eight),
        (good[0], good[0]),
        (1 * good, good),
    ):
        with pytest.raises(ValueError, match="answers"):
            presence_counts(predicted, truth)
