"""Pairs of boxes, and figures of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.metrics.entity_boxes import (
    ImagePairs,
    Pair,
    box_figures,
    detection_area,
    detection_rate,
    pair_boxes,
    pairwise_iou,
)

H1 = (
    [[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]],
    [[0, 0, 10, 5], [22, 20, 32, 30]],
)


def rounded(figures):
    return {name: round(figures[name], 6) for name in ("iou", "detection_rate", "auc", "recall")}


def test_first_worked_example():
    image = pair_boxes(*H1)
    assert image.pairs == (Pair(0, 0, 0.5), Pair(1, 1, pytest.approx(2 / 3)))
    assert rounded(box_figures([image])) == {
        **{"iou": 0.583333, "detection_rate": 0.333333, "auc": 0.388889, "recall": 0.5}
    }
    assert box_figures([image], "grid")["auc"] == pytest.approx(0.4)


def test_second_worked_example_where_greedy_pairing_is_worse():
    image = pair_boxes([[0, 0, 85, 10], [20, 0, 100, 10]], [[0, 0, 100, 10], [0, 0, 60, 10]])
    assert [(p.predicted, p.truth) for p in image.pairs] == [(0, 1), (1, 0)]
    assert image.ious == pytest.approx([0.705882, 0.8], abs=1e-6)
    assert rounded(box_figures([image])) == {
        **{"iou": 0.752941, "detection_rate": 1, "auc": 0.752941, "recall": 1}
    }


def test_third_worked_example_over_several_images():
    silent = pair_boxes([], [[0, 0, 1, 1]])
    invented = pair_boxes([[0, 0, 1, 1]], [])
    figures = box_figures([pair_boxes(*H1), silent, invented])
    assert rounded(figures) == {
        **{"iou": 0.583333, "detection_rate": 0.25, "auc": 0.291667, "recall": 0.333333}
    }
    assert figures["boxes"] == pytest.approx(4 / 3)
    assert figures["per_image"]["detection_rate"] == pytest.approx(1 / 9)
    # nothing there and nothing said changes no figure but the boxes an image
    more = box_figures([pair_boxes(*H1), silent, invented, pair_boxes([], [])])
    assert rounded(more) == rounded(figures)
    assert more["per_image"] == figures["per_image"]
    assert more["boxes"] == 1


def test_nothing_predicted_is_zero():
    figures = box_figures([pair_boxes([], [[0, 0, 1, 1]])])
    assert rounded(figures) == {"iou": 0, "detection_rate": 0, "auc": 0, "recall": 0}
    assert box_figures([])["images"] == 0


def iou_by_pixels(a, b):
    inside = [
        {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])} for box in (a, b)
    ]
    return len(inside[0] & inside[1]) / len(inside[0] | inside[1])


BOX = st.tuples(*[st.integers(0, 8)] * 4).map(
    lambda v: [min(v[0], v[1]), min(v[2], v[3]), max(v[0], v[1]) + 1, max(v[2], v[3]) + 1]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(BOX, max_size=5), st.lists(BOX, max_size=5))
def test_pairs_are_the_best_of_all(predicted, truth):
    found = pair_boxes(predicted, truth)
    count = min(len(predicted), len(truth))
    assert len(found.pairs) == count
    assert len({p.predicted for p in found.pairs}) == len({p.truth for p in found.pairs}) == count
    for pair in found.pairs:
        expected = iou_by_pixels(predicted[pair.predicted], truth[pair.truth])
        assert pair.iou == pytest.approx(expected)
    few, many = sorted((predicted, truth), key=len)
    best = max(
        sum(iou_by_pixels(a, b) for a, b in zip(few, chosen, strict=True))
        for chosen in itertools.permutations(many, count)
    )
    assert sum(found.ious) == pytest.approx(best)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=6), st.integers(0, 3))
def test_the_area_is_the_limit_of_fine_grids(ious, more):
    predicted = len(ious) + more
    steps = 20_000
    grid = sum(detection_rate(ious, predicted, (k + 0.5) / steps) for k in range(0, steps)) / steps
    assert detection_area(ious, predicted) == pytest.approx(grid, abs=1e-4)


def test_the_grid_rewards_pairs_that_do_not_touch():
    assert detection_area([0.0], 1) == 0
    assert detection_area([0.0], 1, "grid") == pytest.approx(0.05)


def test_iou_is_that_of_a_raster():
    """Of all pairs at once, empty boxes among them."""
    random = np.random.default_rng(0)
    low = random.integers(0, 10, (2, 15, 2))
    boxes = np.concatenate([low, low + random.integers(0, 10, (2, 15, 2))], axis=-1)
    masks = np.zeros((2, 15, 20, 20), bool)
    for side, number in itertools.product(range(2), range(15)):
        x1, y1, x2, y2 = boxes[side, number]
        masks[side, number, y1:y2, x1:x2] = True
    found = pairwise_iou(*boxes)
    assert found.shape == (15, 15)
    assert not masks.any(axis=(2, 3)).all()
    for mine, theirs in itertools.product(range(15), range(15)):
        union = (masks[0, mine] | masks[1, theirs]).sum()
        expected = (masks[0, mine] & masks[1, theirs]).sum() / union if union else 0.0
        assert found[mine, theirs] == pytest.approx(expected)


def test_boxes_must_be_boxes():
    with pytest.raises(ValueError, match=r"truth boxes must be \(N, 4\)"):
        pairwise_iou([], [[1, 2, 3]])
    with pytest.raises(ValueError, match="predicted boxes"):
        pair_boxes([[0, 0, float("inf"), 1]], [])
    assert pair_boxes([[1, 1, 1, 5]], [[0, 0, 2, 2]]) == ImagePairs((Pair(0, 0, 0.0),), 1, 1)
