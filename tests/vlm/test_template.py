"""Texts made from annotations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.metrics.claims import Claims
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import Annotation, Record, Sample
from artifactnet.vlm.text.chain_of_thought import ChainOfThought, Style, build_cot, parse_cot
from artifactnet.vlm.text.claims import read_short_answer
from artifactnet.vlm.text.template import (
    CATEGORY_WORDS,
    TEMPLATE,
    answer_shortly,
    describe_annotation,
    marked_categories,
)


def sample(mask=None, heatmap=None, *, label=1, size=(90, 90), state=None) -> Sample:
    if state is None:
        state = Annotation.CLEAN if mask is heatmap is None else Annotation.MASK
    record = Record("u", label, "sdxl" if label else "real", state, "u.png")
    return Sample(record, np.zeros((*size, 3), np.uint8), mask, heatmap)


def mask_with(*boxes, size=(90, 90)) -> np.ndarray:
    """Boxes (y, y, x, x, bits)."""
    mask = np.zeros(size, np.uint8)
    for top, bottom, left, right, bits in boxes:
        mask[top:bottom, left:right] |= bits
    return mask


def test_fixed_text_has_the_standard_form():
    cot = parse_cot(TEMPLATE)
    assert cot.style == Style()
    assert build_cot(cot) == TEMPLATE


def test_categories_and_their_places():
    mask = mask_with((0, 30, 0, 30, 0b10), (60, 90, 30, 90, 0b10000000), (0, 9, 81, 90, 1))
    cot = parse_cot(describe_annotation(sample(mask)))
    assert cot.regions.split("\n") == [
        "- Textures: upper left; 11% of the image.",
        "- Physics: bottom, lower right; 22% of the image.",
        "- Artifacts: upper right; 1% of the image.",
    ]
    issues = [line.split(":")[0] for line in cot.issues.split("\n")]
    assert issues == ["- Textures", "- Physics", "- Artifacts"]
    assert cot.description == "A square generated image."
    assert cot.style == Style()


def test_short_answers():
    mask = mask_with((0, 30, 0, 30, 0b10), (60, 90, 30, 90, 0b10000000), (0, 9, 81, 90, 1))
    marks = " [MAP][SCORE]"
    assert answer_shortly(sample(mask)) == (
        "texture, top left; shadow, bottom middle; artificial, top right" + marks
    )
    boxes = [(y, y + 5, x, x + 5, 4) for y in (10, 40, 70) for x in (10, 40, 70)]
    assert answer_shortly(sample(mask_with(*boxes))) == "shape, spread" + marks
    assert answer_shortly(sample()) == "clean" + marks


@pytest.mark.parametrize("word", CATEGORY_WORDS.values())
@pytest.mark.parametrize("k", range(9))
def test_short_answers_are_read(word, k):
    label = next(label for label, known in CATEGORY_WORDS.items() if known == word)
    row, column = divmod(k, 3)
    name = f"{('top', 'middle', 'bottom')[row]} {('left', 'middle', 'right')[column]}"
    name = "middle" if k == 4 else name
    wanted = Claims((label,), ([*PLACES, "lower right"][k],), False)
    assert read_short_answer(f" {word}, {name} [MAP][SCORE]") == (wanted, True)
    other = "symbols" if word != "symbols" else "shape"
    both, _ = read_short_answer(f"{other}, spread; {word}, {name}; {word}, {name}")
    assert both == Claims((both.categories[0], label), wanted.places, False)
    assert both.categories[0] in ("low-level-symbol", "low-level-edge_shape")


@pytest.mark.parametrize(
    ("text", "categories", "places"),
    [
        ("", 0, 0),
        ("clean, top left", 0, 1),
        ("texture", 1, 0),
        ("texture, upper left", 1, 0),  # not the name that is learned
        ("texture; top left", 1, 0),
        ("shape, top left.", 1, 0),
        ("a, b", 0, 0),
    ],
)
def test_what_is_named_in_another_form_counts(text, categories, places):
    claims, strict = read_short_answer(f"{text} [MAP][SCORE]")
    assert (len(claims.categories), len(claims.places)) == (categories, places)
    assert not claims.says_clean
    assert not strict


@pytest.mark.parametrize("end", ["", " [MAP]", " [MAP] and more", " [MAP][SCORE][SCORE]"])
def test_short_answers_end_with_both_marks(end):
    assert read_short_answer(f"clean{end}") == (Claims((), (), True), False)
    assert read_short_answer(f"texture, top left{end}")[1] is False


def test_what_is_marked():
    mask = mask_with((0, 30, 0, 30, 0b10))
    weak = np.zeros((90, 90), np.float32)
    weak[60:, :30], weak[60:, 30:60] = 0.4, 0.1
    assert marked_categories(sample(mask, weak)) is mask
    lower_left = mask_with((60, 90, 0, 30, 1))
    # as manifests give a heatmap that is nowhere above 0.5
    for empty in (None, np.zeros((90, 90), np.uint8)):
        assert np.array_equal(marked_categories(sample(empty, weak)), lower_left)
        assert marked_categories(sample(empty, weak)).dtype == np.uint8
    assert not marked_categories(sample()).any()
    assert marked_categories(sample()).shape == (90, 90)
    assert marked_categories(sample(mask, weak, state=Annotation.NONE)) is None


PLACES = ["upper left", "top", "upper right", "left", "center", "right", "lower left", "bottom"]


@pytest.mark.parametrize("index", range(9))
def test_names_of_places(index):
    y, x = index // 3 * 30, index % 3 * 30
    text = describe_annotation(sample(mask_with((y + 10, y + 12, x + 10, x + 12, 2))))
    name = [*PLACES, "lower right"][index]
    assert parse_cot(text).regions == f"- Textures: {name}; less than 1% of the image."


def test_overlapping_and_large_categories():
    mask = mask_with((0, 90, 0, 90, 0b1000), (40, 50, 40, 50, 0b100000))
    assert parse_cot(describe_annotation(sample(mask))).regions.split("\n") == [
        "- Symbols: most of the image; 100% of it.",
        "- Semantics: center; 1% of the image.",
    ]


def test_category_spread_over_the_image():
    boxes = [(y, y + 5, x, x + 5, 4) for y in (10, 40, 70) for x in (10, 40, 70)]
    regions = parse_cot(describe_annotation(sample(mask_with(*boxes)))).regions
    assert regions == "- Edges and shapes: spread over the image; 3% of the image."


def test_heatmap_replaces_an_empty_mask():
    heatmap = np.zeros((90, 90), np.float32)
    heatmap[:30, 60:] = 0.2
    heatmap[:30, 60:70] = 0.4  # the whole mask is below 0.5: nothing of it is in the mask
    for mask in (None, np.zeros((90, 90), np.uint8)):
        regions = parse_cot(describe_annotation(sample(mask, heatmap))).regions
        assert regions == "- Artifacts: upper right; 11% of the image."
    heatmap[:30, 60:70] = 0.41
    assert "4% of the image" in describe_annotation(sample(None, heatmap))
    both = describe_annotation(sample(mask_with((40, 50, 40, 50, 2)), heatmap))
    assert parse_cot(both).regions == "- Textures: center; 1% of the image."


def test_clean_images():
    fake, real = describe_annotation(sample()), describe_annotation(sample(label=0, size=(90, 200)))
    assert parse_cot(fake).regions == parse_cot(real).regions == "No region looks implausible."
    assert parse_cot(real).description == "A wide photograph."
    assert (
        parse_cot(describe_annotation(sample(size=(200, 90)))).description
        == "A tall generated image."
    )
    empty = np.zeros((90, 90), np.float32)
    assert describe_annotation(sample(np.zeros((90, 90), np.uint8), empty)) == fake


def test_unannotated_image_gets_the_fixed_text():
    assert describe_annotation(sample(state=Annotation.NONE)) == TEMPLATE


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_any_mask_gives_a_valid_text_with_its_categories(height, width, bits, seed):
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 256, (height, width)).astype(np.uint8) & np.uint8(bits)
    cot = parse_cot(describe_annotation(sample(mask, size=(height, width))))
    assert build_cot(cot) == describe_annotation(sample(mask, size=(height, width)))
    assert parse_cot(build_cot(ChainOfThought(cot.description, cot.regions, cot.issues))) == cot
    bits = int(np.bitwise_or.reduce(mask, axis=None))
    lines = cot.regions.split("\n")
    assert len(lines) == max(1, bits.bit_count())
    named = [category for category in CATEGORIES if bits & category.bit]
    assert len(named) + (bits & 1) == sum(line.startswith("- ") for line in lines)
