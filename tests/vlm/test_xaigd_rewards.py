"""Rewards of answers with categories: worked examples, and what cannot be gained."""

import itertools
import random

import pytest

pytest.importorskip("transformers", reason="needs the extra mllm")

from artifactnet.data.regions import CAPTIONS, UNNAMED
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import ArtifactNetError, Region
from artifactnet.vlm.fakexplainer.grammar import is_strict, write
from artifactnet.vlm.rows import Row
from artifactnet.vlm.xaigd.processing import category_of
from artifactnet.vlm.xaigd.rewards import PadRule

SIZE = (100, 100)
SHORT = {item.short: item.label for item in CATEGORIES}
SYMBOL = '{"bbox_2d": [0, 0, 10, 10], "category": "symbols"}'
TEXTURE = '{"bbox_2d": [0, 0, 10, 8], "category": "textures"}'


def row(*named, is_fake=True, size=SIZE, input_size=SIZE) -> Row:
    regions = tuple(Region(tuple(map(float, box)), CAPTIONS[SHORT[name]]) for name, box in named)
    return Row(0, "image", is_fake, regions, None, size, input_size, "")


def full(*lines, verdict="generated"):
    return "\n".join(["<think>", *lines, "</think>", f"<verdict>{verdict}</verdict>"])


def earned(text, about):
    found = PadRule()(text, about, 0, 1)
    assert found.total == sum(found.parts.values())
    return tuple(found.parts[name] for name in PadRule.parts)


TRUE = row(("symbols", (0, 0, 10, 8)))


@pytest.mark.parametrize(
    ("lines", "detection"),
    [
        ([SYMBOL], 0.8),
        ([SYMBOL, TEXTURE], 0.4),
        ([TEXTURE], 0),
        ([SYMBOL.replace("10, 10", "10, 4")], 0),  # IoU exactly 0.5
        ([SYMBOL] * 5, 0.8),  # one box
        ([], 0),
    ],
)
def test_worked_detections(lines, detection):
    assert earned(full(*lines), TRUE) == pytest.approx((1, 1, detection))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (full(verdict="real"), (0, 1, 0)),
        (full(SYMBOL, verdict="real"), (0, 0, 0.8)),  # a photograph has no artifact
        (full(SYMBOL, verdict="Generated"), (1, 0, 0.8)),
        (full(SYMBOL) + "<verdict>real</verdict>", (0, 0, 0.8)),
        (full(SYMBOL.replace("symbols", "mood")), (1, 0, 0)),
        (full(SYMBOL.replace("symbols", "low-level-symbol")), (1, 0, 0.8)),
        (full(SYMBOL.replace("category", "label")), (1, 0, 0.8)),
        (full(SYMBOL.replace('"category"', '"label": "letters", "category"')), (1, 0, 0.8)),
        (full(SYMBOL, "<tag>none</tag>"), (1, 0, 0.8)),
        (full(SYMBOL.replace("0, 0, 10, 10", "0, 0, 10, 200")), (1, 0, 0)),
        (full(f"[{SYMBOL}]"), (1, 0, 0.8)),
        (f"{SYMBOL}\n<verdict>generated</verdict>", (1, 0, 0.8)),
        # thoughts in prose are no answer
        (f"<think>Perhaps {SYMBOL}?</think>{TEXTURE}<verdict>generated</verdict>", (1, 0, 0)),
        (f"<think>Perhaps {SYMBOL}?</think>{full(SYMBOL)}", (1, 0, 0.8)),
        (f"<think>\n{SYMBOL}\n" + '{"bbox_2d": [3, 4', (0, 0, 0.8)),  # cut off
        ("The image is generated.", (0, 0, 0)),
        ("", (0, 0, 0)),
        ("<think>" * 5000, (0, 0, 0)),
        ("{" * 5000, (0, 0, 0)),
    ],
)
def test_verdict_form_and_boxes_are_judged_apart(text, expected):
    assert earned(text, TRUE) == pytest.approx(expected)


def test_a_photograph_and_a_fake_without_artifacts():
    real, clean = row(is_fake=False), row()
    assert earned(full(verdict="real"), real) == (1, 1, 1)
    assert earned(full(SYMBOL), real) == (0, 1, 0)
    assert earned(full(), clean) == (1, 1, 1)
    assert earned(full(TEXTURE), clean) == (1, 1, 0)


def test_boxes_are_in_coordinates_of_the_model():
    about = row(("color", (100, 50, 300, 200)), size=(512, 512), input_size=(1000, 1000))
    line = '{"bbox_2d": [195, 98, 586, 391], "category": "color"}'
    assert earned(full(line), about)[2] == pytest.approx(1, abs=0.02)
    other = row(("color", (100, 50, 300, 200)), size=(512, 512), input_size=(504, 504))
    assert earned(full(line), other)[2] == 0


def random_boxes(draw, count):
    for _ in range(count):
        x, y = draw.randrange(80), draw.randrange(80)
        width, height = draw.randrange(1, 21), draw.randrange(1, 21)
        yield draw.choice(list(SHORT)[:2]), (x, y, x + width, y + height)


def lines_of(boxes):
    return [f'{{"bbox_2d": {list(box)}, "category": "{name}"}}' for name, box in boxes]


def test_rewards_of_random_answers():
    """In [0, 1]; repeated boxes change nothing; another box never helps a perfect answer."""
    draw = random.Random(0)
    for _ in range(200):
        truth = list(dict.fromkeys(random_boxes(draw, draw.randrange(5))))
        about = row(*truth, is_fake=draw.random() < 0.5)
        # some true boxes, some moved ones, some others
        said = [one for one in truth if draw.random() < 0.6]
        moved = [
            (name, (x1, y1, x2 + 1, y2 + 1)) for name, (x1, y1, x2, y2) in said if x2 < 99 > y2
        ]
        said = [*said, *moved, *random_boxes(draw, draw.randrange(3))]
        draw.shuffle(said)
        verdict = draw.choice(("real", "generated"))
        parts = earned(full(*lines_of(said), verdict=verdict), about)
        assert all(0 <= part <= 1 for part in parts)
        again = [*said, *draw.choices(said, k=3)] if said else said
        assert earned(full(*lines_of(again), verdict=verdict), about) == parts
        perfect = full(*lines_of(truth))
        assert earned(perfect, about)[2] == 1
        more = [*truth, *random_boxes(draw, 1)]
        assert earned(full(*lines_of(more)), about)[2] <= 1
        if len(set(more)) > len(set(truth)):
            assert earned(full(*lines_of(more)), about)[2] < 1


def test_order_matters_only_among_boxes_that_want_the_same():
    """Without overlaps there is nothing to compete for."""
    truth = [(name, (20 * k, 0, 20 * k + 18, 18)) for k, name in enumerate(list(SHORT)[:4])]
    said = [(name, (x, y, right, bottom - 2)) for name, (x, y, right, bottom) in truth[:3]]
    about = row(*truth)
    found = {
        round(earned(full(*lines_of(order)), about)[2], 9) for order in itertools.permutations(said)
    }
    assert found == {round(3 * 16 / 18 / 4, 9)}


def test_the_form_is_what_is_written():
    for item in CATEGORIES:
        region = Region((1.0, 2.0, 30.0, 40.0), item.short)
        text = write(True, [region], (), SIZE, SIZE, "tags", "category")
        assert text == full(f'{{"bbox_2d": [1, 2, 30, 40], "category": "{item.short}"}}')
        assert is_strict(text, SIZE, "tags", "category")
        assert not is_strict(text, SIZE, "tags", "json")
    with pytest.raises(ArtifactNetError, match=r"regions\[0\]: 'hand' is no category of X-AIGD"):
        write(True, [Region((1.0, 2.0, 3.0, 4.0), "hand")], (), SIZE, SIZE, "tags", "category")
    assert is_strict(full(*[SYMBOL] * 32), SIZE, "tags", "category")
    assert not is_strict(full(*[SYMBOL] * 33), SIZE, "tags", "category")


def test_regions_have_a_category():
    for item in CATEGORIES:
        assert category_of(Region((0.0, 0.0, 1.0, 1.0), CAPTIONS[item.label])) == item
    for caption in (UNNAMED, "symbols"):
        with pytest.raises(ArtifactNetError, match="of no category of X-AIGD"):
            category_of(Region((0.0, 0.0, 1.0, 1.0), caption))
