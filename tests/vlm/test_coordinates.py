"""Boxes in the coordinates of each family of models, and back."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.types import ArtifactNetError
from artifactnet.vlm.coordinates import (
    FAMILIES,
    THOUSANDTHS,
    rule_of,
    smart_resize,
    to_image,
    to_model,
)

LIMIT = 12_845_056  # of the released Qwen2.5-VL checkpoints


@pytest.mark.parametrize(
    ("size", "limit", "resized"),
    [
        ((512, 512), LIMIT, (504, 504)),
        ((480, 640), LIMIT, (476, 644)),
        ((1080, 1920), LIMIT, (1092, 1932)),
        ((1080, 1920), 1_003_520, (728, 1316)),
        ((42, 42), LIMIT, (56, 56)),
        ((70, 98), LIMIT, (56, 112)),
    ],
)
def test_worked_sizes(size, limit, resized):
    assert smart_resize(*size, 28, 56 * 56, limit) == resized


def test_sizes_equal_those_of_transformers():
    theirs = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl")
    draw = random.Random(0)
    for _ in range(2000):
        side = draw.choice([20, 100, 1000, 9000])
        height, width = draw.randint(1, side), draw.randint(1, side)
        factor, most = draw.choice([28, 32]), draw.choice([LIMIT, 1_003_520, 50_176])
        if max(height, width) / min(height, width) > 200:
            with pytest.raises(ValueError):
                theirs.smart_resize(height, width, factor, 3136, most)
            with pytest.raises(ArtifactNetError, match=f"{width}x{height}"):
                smart_resize(height, width, factor, 3136, most)
        else:
            expected = theirs.smart_resize(height, width, factor, 3136, most)
            assert smart_resize(height, width, factor, 3136, most) == expected


@pytest.mark.parametrize(("size", "word"), [((2, 401), "401x2"), ((0, 5), "no pixels")])
def test_images_that_no_model_takes(size, word):
    with pytest.raises(ArtifactNetError, match=word):
        smart_resize(*size, 28, 3136, LIMIT)


@pytest.mark.parametrize(
    ("box", "image", "input_size", "written", "back"),
    [
        (
            (100, 50, 300, 200),
            (512, 512),
            (504, 504),
            (98, 49, 295, 197),
            (99.5556, 49.7778, 299.6825, 200.1270),
        ),
        ((100, 50, 300, 200), (512, 512), THOUSANDTHS, (195, 98, 586, 391), None),
        ((12, 30, 600, 470), (640, 480), (644, 476), (12, 30, 604, 466), None),
        (
            (12, 30, 600, 470),
            (640, 480),
            THOUSANDTHS,
            (19, 63, 938, 979),
            (12.16, 30.24, 600.32, 469.92),
        ),
    ],
)
def test_worked_boxes(box, image, input_size, written, back):
    assert to_model(box, image, input_size) == written
    if back is not None:
        assert to_image(written, image, input_size) == pytest.approx(back, abs=5e-5)


@pytest.mark.parametrize(
    ("box", "written"),
    [
        ((100.0, 100.0, 100.2, 100.2), (10, 10, 11, 11)),  # thinner than a unit
        ((999.5, 0.0, 1000.0, 1000.0), (99, 0, 100, 100)),  # at the far edge
        ((0.0, 0.0, 0.1, 0.1), (0, 0, 1, 1)),
        ((-3.0, -9.0, 2000.0, 1000.00001), (0, 0, 100, 100)),
    ],
)
def test_no_box_becomes_empty_or_leaves_the_image(box, written):
    assert to_model(box, (1000, 1000), (100, 100)) == written


SIDES = st.integers(1, 5000)


@given(st.data(), st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES))
def test_whole_boxes_survive_the_way_there_and_back(data, image, input_size):
    corners = []
    for side in input_size:
        start = data.draw(st.integers(0, side - 1))
        corners.append((start, data.draw(st.integers(start + 1, side))))
    (x1, x2), (y1, y2) = corners
    box = (x1, y1, x2, y2)
    assert to_model(to_image(box, image, input_size), image, input_size) == box


def test_rules_of_families():
    assert [name for name, rule in FAMILIES.items() if rule == "pixels"] == ["qwen2_5_vl"]
    for name in ("qwen2_vl", "qwen3_vl", "internvl", "llava", "llava_next", "llava_onevision"):
        assert rule_of(name) == "thousandths"
    with pytest.raises(ArtifactNetError, match=r"'blip_2'.*qwen2_5_vl.*internvl.*llava"):
        rule_of("blip_2")
