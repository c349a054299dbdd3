"""Which boxes become entities: cases worked out by hand."""

import numpy as np
import pytest
from qreal_stubs import StubDetector

from artifactnet.annotation.qreal.detection import Box, choose_boxes, detect, read_boxes
from artifactnet.types import ArtifactNetError

SIZE = (160, 200)  # 1 % of it are 320 square pixels


def box(label, *corners, score=0.5):
    return Box(label, tuple(map(float, corners)), score)


def corners(boxes):
    return [(one.label, one.bbox) for one in boxes]


def test_the_best_box_of_each_name_stays():
    found = [
        [box("cat", 0, 0, 50, 50, score=0.9), box("cat", 100, 0, 150, 50, score=0.4)],
        [],
        [box("dog", 0, 60, 50, 110, score=0.3)],
    ]
    kept = choose_boxes(found, SIZE)
    assert corners(kept) == [("cat", (0, 0, 50, 50)), ("dog", (0, 60, 50, 110))]


def test_more_boxes_of_a_name_must_not_overlap_by_half():
    first = box("cat", 0, 0, 60, 60, score=0.9)
    half = box("cat", 0, 0, 60, 120, score=0.8)  # IoU 0.5, which is not above 0.5
    more = box("cat", 0, 0, 60, 119, score=0.7)  # 60 / 119
    other = box("cat", 100, 0, 160, 60, score=0.6)
    kept = choose_boxes([[first, half, more, other]], SIZE, max_boxes=3)
    assert [one.score for one in kept] == [0.9, 0.8, 0.6]
    assert [b.score for b in choose_boxes([[first, more, other]], SIZE, max_boxes=3)] == [0.9, 0.6]
    assert [b.score for b in choose_boxes([[first, half, other]], SIZE, max_boxes=2)] == [0.9, 0.8]


def test_boxes_are_clipped_and_small_ones_dropped():
    found = [
        [box("out", -10.5, -3, 60.126, 70)],
        [box("thin", 0, 0, 31.9, 100)],
        [box("thin once clipped", 170, 0, 250, 50)],
        [box("wide enough", 168, 0, 250, 50)],
        [box("gone", 300, 300, 400, 400)],
    ]
    assert corners(choose_boxes(found, SIZE)) == [
        ("out", (0, 0, 60.13, 70)),
        ("wide enough", (168, 0, 200, 50)),
    ]
    # 32 x 32 pixels are less than 1 % of 320 x 330
    assert choose_boxes([[box("small", 0, 0, 32, 32)]], (320, 330)) == []
    assert len(choose_boxes([[box("small", 0, 0, 32, 32)]], (320, 320))) == 1


def test_a_small_best_box_is_not_replaced():
    found = [[box("cat", 0, 0, 10, 10, score=0.9), box("cat", 50, 50, 100, 100, score=0.8)]]
    assert choose_boxes(found, SIZE) == []


def test_of_two_names_for_one_box_the_better_stays():
    found = [
        [box("bow", 0, 0, 100, 91, score=0.4)],
        [box("violin", 0, 0, 100, 100, score=0.6)],  # IoU 0.91
        [box("cat", 0, 0, 100, 90, score=0.9)],  # with the violin 0.9, not above
    ]
    assert [one.label for one in choose_boxes(found, SIZE)] == ["violin", "cat"]


def test_what_is_logged_is_read_again():
    detector = StubDetector({"cat": ([[1, 2, 3, 4.5], [5, 6, 7, 8]], [0.25, 0.5])})
    answer = detect(detector, np.zeros((9, 9, 3), np.uint8), "cat")
    assert read_boxes("cat", answer) == [
        box("cat", 5, 6, 7, 8, score=0.5),
        box("cat", 1, 2, 3, 4.5, score=0.25),
    ]


@pytest.mark.parametrize(
    ("boxes", "scores", "problem"),
    [
        ([[0, 0, 1, float("nan")]], [0.5], "not finite"),
        ([[0, 0, 1, 1]], [float("inf")], "not finite"),
        ([[0, 0, 1, 1]], [], "1 boxes and 0 scores"),
        ([[0, 0, 1]], [0.5], "1 boxes and 1 scores"),
    ],
)
def test_a_broken_detector_is_named(boxes, scores, problem):
    with pytest.raises(ArtifactNetError, match=problem):
        detect(StubDetector({"cat": (boxes, scores)}), np.zeros((9, 9, 3), np.uint8), "cat")
