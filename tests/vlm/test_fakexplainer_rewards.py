"""Rewards of answers: worked examples and what cannot be gained."""

import random

import pytest

from artifactnet.types import Region
from artifactnet.vlm.fakexplainer.grammar import is_strict, write
from artifactnet.vlm.fakexplainer.rewards import Reward, Truth, grounding_weight, score_answer

SIZE = (512, 512)


def regions(*boxes) -> tuple[Region, ...]:
    return tuple(Region(tuple(map(float, box)), f"part {k}") for k, box in enumerate(boxes))


def truth(*boxes, is_fake=True, size=SIZE) -> Truth:
    return Truth(is_fake, regions(*boxes), (), size, size)


def answer(*boxes, is_fake=True, tags=(), drop="none", size=SIZE) -> str:
    return write(is_fake, regions(*boxes), tags, size, size, drop)


# predicted | annotated -> IoU of the unions, R_G, matched IoU
QUARTERS = [[0, 0, 5, 5], [5, 0, 10, 5], [0, 5, 5, 10], [5, 5, 10, 10]]
WORKED = {
    "E1": ([[0, 0, 10, 10]], [[5, 0, 15, 10]], 0.333333, 0.366667, 0.333333),
    "E2": (QUARTERS, [[0, 0, 10, 10]], 1, 1, 0.25),
    "E3": ([[0, 0, 10, 10], [5, 5, 15, 15]], [[0, 0, 15, 15]], 0.777778, 0.855556, 0.444444),
    "E4": ([[0, 0, 10, 10]], [[0, 0, 10, 10], [20, 20, 30, 30]], 0.5, 0.55, 0.5),
    "E5": ([[0, 0, 95, 100]], [[0, 0, 100, 100]], 0.95, 1, 0.95),
    "E6": ([[0, 0, 512, 512]], [[100, 100, 200, 200]], 0.038147, 0.041962, 0.038147),
    "E8": (
        [[40, 40, 50, 50], [0, 0, 10, 10]],
        [[0, 0, 10, 10], [44, 44, 54, 54]],
        *(0.515152, 0.566667, 0.609756),
    ),
}


@pytest.mark.parametrize("name", WORKED)
def test_worked_grounding(name):
    predicted, annotated, union, grounding, matched = WORKED[name]
    text = answer(*predicted)
    found = score_answer(text, truth(*annotated), weight=1)
    assert found.iou == pytest.approx(union, abs=1e-6)
    assert found.grounding == pytest.approx(grounding, abs=1e-6)
    by_box = score_answer(text, truth(*annotated), weight=1, iou="matched")
    assert by_box.iou == pytest.approx(matched, abs=1e-6)
    assert by_box.grounding == pytest.approx(min(1, 1.1 * matched), abs=1e-6)


@pytest.mark.parametrize(
    ("step", "steps", "total"), [(0, 18, 2.183333), (9, 18, 2.275), (17, 18, 2.356481)]
)
def test_worked_totals(step, steps, total):
    weight = grounding_weight("linear", step, steps)
    found = score_answer(answer([0, 0, 10, 10]), truth([5, 0, 15, 10]), weight)
    assert (found.label, found.format) == (1, 1)
    assert found.total == pytest.approx(total, abs=1e-6)


def test_weights():
    assert [grounding_weight("linear", t, 3) for t in range(3)] == pytest.approx(
        [0.5, 0.667, 0.833], abs=5e-4
    )
    assert grounding_weight(1, 2, 3) == 1
    assert grounding_weight(0.5, 2, 3) == 0.5


R = '{"bbox_2d": [1, 2, 30, 40], "label": "hand with six fingers"}'


def full(lines: str, tags: str, verdict: str) -> str:
    return f"<think>\n{lines}\n<tag>{tags}</tag>\n</think>\n<verdict>{verdict}</verdict>"


FORMS = [
    (full(R, "wrong texture", "generated"), 1, 1),
    ("<think>\n<tag>none</tag>\n</think>\n<verdict>real</verdict>", 0, 1),
    (
        f"<think>\n{R}\n</think>\n<tag>wrong texture</tag>\n<verdict>generated</verdict>",
        *(1, 0),
    ),
    (full(R, "none", "real"), 0, 0),
    (full("", "none", "generated"), 1, 0),
    (full(R, "bad hands", "generated"), 1, 0),
    (full(R.replace("[1, 2, 30, 40]", "[30, 2, 1, 40]"), "wrong texture", "generated"), 1, 0),
    (full(R, "wrong texture", "generated") + "\n<verdict>real</verdict>", 0, 0),
    (full(R, "wrong texture", "Generated"), 1, 0),
    ("The image is generated.", 0, 0),
    (full("", "artistic style, wrong texture", "generated"), 1, 1),
]


@pytest.mark.parametrize(("text", "label", "form"), FORMS)
def test_worked_verdicts_and_forms(text, label, form):
    found = score_answer(text, truth([1, 2, 30, 40], size=(100, 100)), weight=0)
    assert (found.label, found.format) == (label, form)
    assert found.total == label + form


@pytest.mark.parametrize(
    ("predicted", "annotated", "iou"),
    [((), (), 1), (([1, 1, 9, 9],), (), 0), ((), ([1, 1, 9, 9],), 0)],
)
def test_no_boxes(predicted, annotated, iou):
    text = answer(*predicted, tags=("wrong texture",))
    for kind in ("union", "matched"):
        found = score_answer(text, truth(*annotated), weight=1, iou=kind)
        assert (found.iou, found.grounding) == (iou, iou)


def test_a_real_image():
    real = truth(is_fake=False)
    assert score_answer(answer(is_fake=False), real, 0.5) == Reward(1, 1, 1, 2.5, 0, 0, 1)
    lie = score_answer(answer([0, 0, 256, 512]), real, 0.5)
    assert lie == Reward(0, 0, 1, 1, 1, 0.5, 0)


def test_area_cannot_be_gained_twice():
    once = score_answer(answer([0, 0, 10, 10]), truth([5, 0, 15, 10]), 1)
    many = score_answer(answer(*[[0, 0, 10, 10]] * 9), truth([5, 0, 15, 10]), 1)
    assert (many.iou, many.area_share, many.regions) == (once.iou, once.area_share, 9)
    assert once.area_share == 100 / 512**2


def test_more_than_32_regions_earn_nothing():
    lines = "\n".join(R.replace("1, 2, 30, 40", f"{k}, 0, {k + 1}, 10") for k in range(40))
    annotated = truth([0, 0, 40, 10])
    for kind in ("union", "matched"):
        found = score_answer(full(lines, "none", "generated"), annotated, 1, iou=kind)
        assert found == Reward(1, 0, 0, 1, 40, 320 / 512**2, 0)
        kept = full("\n".join(lines.split("\n")[:32]), "none", "generated")
        assert score_answer(kept, annotated, 1).grounding == pytest.approx(1.1 * 32 / 40)


def test_boxes_are_in_coordinates_of_the_model():
    box = [100, 50, 300, 200]
    for size in ((504, 504), (1000, 1000)):
        text = write(True, regions(box), (), SIZE, size)
        found = score_answer(text, Truth(True, regions(box), (), SIZE, size), 1)
        assert found.iou > 0.98
    # the same text taken for other coordinates
    assert score_answer(text, Truth(True, regions(box), (), SIZE, (504, 504)), 1).iou < 0.3


@pytest.mark.parametrize("drop", ["bbox", "label"])
def test_without_boxes_there_is_no_grounding(drop):
    text = answer([0, 0, 10, 10], drop=drop)
    found = score_answer(text, truth([0, 0, 10, 10]), 1, drop=drop)
    assert (found.grounding, found.total) == (0, 2)
    wrong = score_answer(text, truth(is_fake=False), 1, drop=drop)
    assert (wrong.label, wrong.total) == (0, 1)


@pytest.mark.parametrize("drop", ["caption", "tags"])
def test_without_captions_or_tags_boxes_still_count(drop):
    text = answer([0, 0, 10, 10], tags=("wrong texture",), drop=drop)
    found = score_answer(text, truth([0, 0, 10, 10]), 1, drop=drop)
    assert (found.iou, found.total) == (1, 3)
    assert score_answer(text, truth([0, 0, 10, 10]), 1).format == 0


def test_the_form_does_not_look_at_the_truth():
    draw = random.Random(0)
    for text, _, form in FORMS:
        size = (100, 100)
        for _ in range(5):
            x, y = draw.randrange(50), draw.randrange(50)
            any_truth = truth([x, y, x + 9, y + 9], is_fake=draw.random() < 0.5, size=size)
            assert score_answer(text, any_truth, draw.random()).format == form
        assert is_strict(text, size) == form


@pytest.mark.parametrize("text", ["", "<verdict>", "{" * 5000, '{"bbox_2d": [1, 2, "a", {}]}' * 50])
def test_rubbish_earns_nothing_on_a_fake(text):
    found = score_answer(text, truth([0, 0, 10, 10]), 1)
    assert found == Reward(0, 0, 0, 0, 0, 0, 0)
