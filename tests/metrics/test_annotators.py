"""Quality control of annotators, against a worked example."""

from __future__ import annotations

import math

import pytest

from artifactnet.metrics.annotators import (
    AnnotatorQuality,
    Control,
    annotator_qualities,
    tag_agreement,
)


def test_worked_example() -> None:
    ious, agreements = (1 / 3, 0, 1 / 2), (1 / 2, 1, 0)
    (found,) = annotator_qualities(
        Control("ann", *both) for both in zip(ious, agreements, strict=True)
    )
    assert found == AnnotatorQuality("ann", 3, pytest.approx(0.277778, abs=5e-7), 0.5, True)


def test_agreement_of_tags() -> None:
    assert tag_agreement([], []) == 1
    assert tag_agreement(["x"], []) == tag_agreement([], ["x"]) == tag_agreement(["x"], ["y"]) == 0
    assert tag_agreement(["x", "y"], ["y", "z"]) == 1 / 3
    assert tag_agreement(["x", "y"], ["y", "x"]) == 1


@pytest.mark.parametrize(
    ("ious", "agreements", "kept"),
    [
        ([0.2], [1 / 3], True),
        ([0.1, 0.2, 0.3], [1 / 3] * 3, True),  # its mean is 0.2 but for rounding
        ([0.199], [1], False),
        ([1], [0.333], False),
        ([0, 1], [1, 0], True),
    ],
)
def test_both_means_must_reach_their_limit(ious, agreements, kept) -> None:
    controls = [Control("a", iou, tags) for iou, tags in zip(ious, agreements, strict=True)]
    (found,) = annotator_qualities(controls)
    assert found.kept is kept


def test_annotators_are_judged_apart_and_sorted() -> None:
    controls = [Control("b", 1, 1), Control("a", 0, 1), Control("b", 0, 1), Control("a", 0.1, 1)]
    found = annotator_qualities(controls)
    assert [(one.annotator, one.controls, one.kept) for one in found] == [
        ("a", 2, False),
        ("b", 2, True),
    ]
    assert [one.kept for one in annotator_qualities(controls, 0.6, 0.5)] == [False, False]
    assert annotator_qualities([]) == []


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_values_outside_of_0_to_1_are_refused(value: float) -> None:
    for call in (
        lambda: annotator_qualities([Control("a", value, 1)]),
        lambda: annotator_qualities([Control("a", 1, value)]),
        lambda: annotator_qualities([], least_iou=value),
        lambda: annotator_qualities([], least_tags=value),
    ):
        with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
            call()
