"""Filtering annotations by the annotators' confidence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.metrics.confidence import accuracy_by_confidence, confident_annotations
from artifactnet.types import ArtifactNetError

scores = st.sampled_from([0.0, 0.5, 1.0])


@given(
    rows=st.lists(st.tuples(scores, scores, scores), min_size=1, max_size=10),
    minimum=st.sampled_from([0.0, 1 / 6, 1 / 3, 0.5, 2 / 3, 5 / 6, 1.0]),
)
def test_mean_of_the_annotators_reaches_the_minimum(rows, minimum):
    expected = [sum(row) / 3 >= minimum for row in rows]
    assert confident_annotations(torch.tensor(rows), minimum).tolist() == expected
    means = torch.tensor([sum(row) / 3 for row in rows], dtype=torch.float64)
    assert confident_annotations(means, minimum).tolist() == expected


@given(
    images=st.lists(
        st.tuples(st.one_of(st.none(), st.lists(scores, max_size=4)), st.booleans()), max_size=12
    ),
    minimum=scores,
)
def test_accuracy_by_loops(images, minimum):
    confidences = [None if values is None else torch.tensor(values) for values, _ in images]
    correct = torch.tensor([right for _, right in images], dtype=torch.bool)
    (row,) = accuracy_by_confidence(confidences, correct, [minimum])
    shown, rest, instances = [], [], 0
    for values, right in images:
        if values is not None:
            kept = sum(value >= minimum for value in values)
            instances += kept
            (shown if kept else rest).append(right)
    assert row == {
        "minimum": minimum,
        "instances": instances,
        "images": len(shown),
        "accuracy": sum(shown) / len(shown) if shown else 0.0,
        "images_without": len(rest),
        "accuracy_without": sum(rest) / len(rest) if rest else 0.0,
        "unscored_images": sum(values is None for values, _ in images),
    }


def test_a_stricter_minimum_keeps_fewer():
    confidences = [torch.tensor([0.2, 0.9]), torch.tensor([0.4]), torch.tensor([]), None]
    correct = torch.tensor([True, False, True, True])
    rows = accuracy_by_confidence(confidences, correct, [0.0, 0.3, 0.5, 1.0])
    assert [row["images"] for row in rows] == [2, 2, 1, 0]
    assert [row["instances"] for row in rows] == [3, 2, 1, 0]
    assert [row["accuracy"] for row in rows] == [0.5, 0.5, 1.0, 0.0]
    assert [row["images_without"] for row in rows] == [1, 1, 2, 3]


@pytest.mark.parametrize("bad", [-0.5, 1.5, float("nan")])
def test_what_is_no_confidence_is_refused(bad):
    with pytest.raises(ArtifactNetError, match="1 confidence scores are not numbers"):
        confident_annotations(torch.tensor([0.5, bad]), 0.5)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="annotators"):
        confident_annotations(torch.zeros(2, 2, 2), 0.5)
    with pytest.raises(ValueError, match="annotators"):
        confident_annotations(torch.zeros(2, 0), 0.5)
    with pytest.raises(ValueError, match="2 images"):
        accuracy_by_confidence([None, None], torch.zeros(3).bool(), [0.5])
