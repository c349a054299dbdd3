"""The detection reward of X-AIGD's GRPO baseline."""

import pytest

from artifactnet.metrics.category_boxes import CategoryBox, detection_reward
from artifactnet.metrics.category_presence import random_f1

SYMBOL = CategoryBox("symbols", (0, 0, 10, 10))
TRUE = CategoryBox("symbols", (0, 0, 10, 8))
TEXTURE = CategoryBox("textures", (0, 0, 10, 8))


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ([SYMBOL], [TRUE], 0.8),
        ([SYMBOL, TEXTURE], [TRUE], 0.4),
        ([TEXTURE], [TRUE], 0),
        ([SYMBOL], [CategoryBox("symbols", (0, 0, 10, 5))], 0),  # exactly 0.5
        ([], [], 1),
        ([], [TRUE], 0),
        ([SYMBOL], [], 0),
        ([SYMBOL, SYMBOL], [TRUE], 0.8),  # one of them
        ([TRUE, SYMBOL], [TRUE], 0.5),  # the second finds nothing that is free
        ([SYMBOL, TRUE], [TRUE, SYMBOL], 1),  # each takes the best
        ([SYMBOL], [TRUE, TEXTURE], 0.4),
    ],
)
def test_detection_reward(predicted, truth, expected):
    assert detection_reward(predicted, truth) == pytest.approx(expected)


def test_a_box_that_fits_badly_leaves_its_best_free():
    bad = CategoryBox("symbols", (0, 4, 10, 12))  # IoU 1/3
    assert detection_reward([bad, SYMBOL], [TRUE]) == pytest.approx(0.4)


@pytest.mark.parametrize(("q", "expected"), [(0.2133, 0.2990), (0.5, 0.5), (1, 0.6667), (0, 0)])
def test_guessing_presence(q, expected):
    assert random_f1(q) == pytest.approx(expected, abs=5e-5)
