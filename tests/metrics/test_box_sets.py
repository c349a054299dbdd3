"""Overlap of two sets of boxes, against worked examples, a raster and a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.metrics.box_sets import box_set_areas, matched_iou, union_iou

Box = tuple[float, float, float, float]
WIDTH, HEIGHT = 23, 17

# predicted, truth, IoU of the unions, IoU of the pairs
EXAMPLES: dict[str, tuple[list[Box], list[Box], float, float]] = {
    "half beside": ([(0, 0, 10, 10)], [(5, 0, 15, 10)], 0.333333, 0.333333),
    "four quarters": (
        [(0, 0, 5, 5), (5, 0, 10, 5), (0, 5, 5, 10), (5, 5, 10, 10)],
        [(0, 0, 10, 10)],
        1.0,
        0.25,
    ),
    "overlapping": ([(0, 0, 10, 10), (5, 5, 15, 15)], [(0, 0, 15, 15)], 0.777778, 0.444444),
    "one of two": ([(0, 0, 10, 10)], [(0, 0, 10, 10), (20, 20, 30, 30)], 0.5, 0.5),
    "a little small": ([(0, 0, 95, 100)], [(0, 0, 100, 100)], 0.95, 0.95),
    "whole image": ([(0, 0, 512, 512)], [(100, 100, 200, 200)], 0.038147, 0.038147),
    "nearest centre": (
        [(40, 40, 50, 50), (0, 0, 10, 10)],
        [(0, 0, 10, 10), (44, 44, 54, 54)],
        0.515152,
        0.609756,
    ),
    "both empty": ([], [], 1.0, 1.0),
    "nothing predicted": ([], [(0, 0, 1, 1)], 0.0, 0.0),
    "nothing to find": ([(0, 0, 1, 1)], [], 0.0, 0.0),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples(name: str) -> None:
    predicted, truth, union, matched = EXAMPLES[name]
    assert union_iou(predicted, truth) == pytest.approx(union, abs=5e-7)
    assert matched_iou(predicted, truth) == pytest.approx(matched, abs=5e-7)
    arrays = np.array(predicted).reshape(-1, 4), np.array(truth).reshape(-1, 4)
    assert union_iou(*arrays) == union_iou(predicted, truth)
    assert matched_iou(*arrays) == matched_iou(predicted, truth)


def whole_boxes() -> st.SearchStrategy[list[Box]]:
    """Boxes of whole numbers, partly beyond a WIDTH x HEIGHT image, some of them empty."""
    number = st.integers(-5, 28)
    return st.lists(st.tuples(number, number, number, number), max_size=8)


def raster(boxes: list[Box]) -> np.ndarray:
    image = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for x1, y1, x2, y2 in boxes:
        for y in range(max(0, int(y1)), min(HEIGHT, int(y2))):
            for x in range(max(0, int(x1)), min(WIDTH, int(x2))):
                image[y, x] = True
    return image


@settings(max_examples=150, deadline=None)
@given(whole_boxes(), whole_boxes())
def test_areas_are_those_of_a_raster(predicted: list[Box], truth: list[Box]) -> None:
    a, b = raster(predicted), raster(truth)
    areas = box_set_areas(predicted, truth, (WIDTH, HEIGHT))
    assert areas == ((a & b).sum(), (a | b).sum(), a.sum(), b.sum())
    expected = (a & b).sum() / (a | b).sum() if (a | b).any() else 1.0
    assert union_iou(predicted, truth, (WIDTH, HEIGHT)) == expected


def loop_matched(predicted: list[Box], truth: list[Box]) -> float:
    """Pairs by nearest free centre, box by box."""

    def clip(boxes: list[Box]) -> list[Box]:
        inside = [
            (max(0.0, a), max(0.0, b), min(float(WIDTH), c), min(float(HEIGHT), d))
            for a, b, c, d in boxes
        ]
        return [box for box in inside if box[0] < box[2] and box[1] < box[3]]

    def iou(p: Box, q: Box) -> float:
        width = max(0.0, min(p[2], q[2]) - max(p[0], q[0]))
        height = max(0.0, min(p[3], q[3]) - max(p[1], q[1]))
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (p, q)]
        return width * height / (sum(areas) - width * height)

    def apart(p: Box, q: Box) -> float:
        x, y = p[0] + p[2] - q[0] - q[2], p[1] + p[3] - q[1] - q[3]
        return x * x + y * y

    mine, theirs = clip(predicted), clip(truth)
    if not mine or not theirs:
        return float(not mine and not theirs)
    free, total = list(range(len(theirs))), 0.0
    for box in mine:
        if free:
            nearest = min(free, key=lambda k: apart(box, theirs[k]))
            free.remove(nearest)
            total += iou(box, theirs[nearest])
    return total / len(theirs)


@settings(max_examples=150, deadline=None)
@given(whole_boxes(), whole_boxes())
def test_pairs_are_those_of_a_loop(predicted: list[Box], truth: list[Box]) -> None:
    expected = loop_matched(predicted, truth)
    assert matched_iou(predicted, truth, (WIDTH, HEIGHT)) == pytest.approx(expected, abs=1e-12)


def test_fractions_of_a_pixel() -> None:
    areas = box_set_areas([(0.25, 0.5, 1.75, 2.0)], [(1.0, 1.0, 3.5, 1.5)])
    assert areas == pytest.approx((0.375, 3.125, 2.25, 1.25), abs=1e-12)


def test_an_area_cannot_be_gained_twice() -> None:
    truth = [(0, 0, 10, 10)]
    assert union_iou([(0, 0, 10, 5)] * 20, truth) == union_iou([(0, 0, 10, 5)], truth) == 0.5


@pytest.mark.parametrize("function", [union_iou, matched_iou])
@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([(0, 0, 1)], r"predicted boxes must be \(N, 4\), got \(1, 3\)"),
        ([(0, 0, math.nan, 1)], "predicted boxes hold NaN or infinity"),
        ([(0, 0, math.inf, 1)], "predicted boxes hold NaN or infinity"),
    ],
)
def test_boxes_that_are_none(function, boxes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(boxes, [(0, 0, 1, 1)])
