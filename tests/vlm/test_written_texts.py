"""Texts of known facts: written in many words, read back exactly, and told from near misses."""

import re
from collections import Counter
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.metrics.claims import Claims
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED
from artifactnet.types import Annotation, Record, Sample
from artifactnet.vlm.text.chain_of_thought import (
    ChainOfThought,
    Style,
    build_cot,
    parse_cot,
    repair_cot,
)
from artifactnet.vlm.text.claims import claims_of, read_claims
from artifactnet.vlm.text.facts import (
    LABELS,
    PLAUSIBILITIES,
    SIZES,
    STRENGTHS,
    UNTOUCHED,
    Facts,
    Finding,
    find_facts,
)
from artifactnet.vlm.text.places import PLACES
from artifactnet.vlm.text.reading import read_facts
from artifactnet.vlm.text.template import CATEGORY_WORDS, TEMPLATE, describe_annotation
from artifactnet.vlm.text.wordings import HELD_OUT, TRAIN
from artifactnet.vlm.text.writing import write_facts

CAPTIONS = ("a red barn by a pond", "a farm")
SETS = pytest.mark.parametrize("words", [TRAIN, HELD_OUT], ids=["train", "held-out"])
BY_SHORT = {category.short: category.label for category in CATEGORIES}

findings = st.builds(
    Finding,
    st.sampled_from(LABELS),
    st.lists(st.sampled_from(PLACES), unique=True, max_size=4).map(tuple),
    st.integers(0, len(SIZES) - 1),
    st.integers(0, len(STRENGTHS) - 1),
)
edited = st.builds(
    Facts,
    st.lists(findings, min_size=1, max_size=7, unique_by=lambda f: f.label).map(tuple),
    st.integers(0, len(PLAUSIBILITIES) - 2),
)


def chain(regions: str, issues: str) -> str:
    return build_cot(ChainOfThought("A barn.", regions, issues))


def read(issues: str, regions: str = "1. A small area in the left.") -> tuple[str, ...]:
    return read_claims(chain(regions, issues)).categories


def places(regions: str) -> tuple[str, ...]:
    return read_claims(chain(regions, "1. Hues are off.")).places


def clean(regions: str, issues: str) -> bool:
    return read_claims(chain(regions, issues)).says_clean


@settings(max_examples=400, deadline=None)
@given(edited | st.just(UNTOUCHED), st.text(max_size=12), st.booleans())
def test_what_was_written_is_read_again(facts, key, held_out):
    text = write_facts(facts, CAPTIONS, key, held_out)
    assert read_facts(text) == facts
    assert read_claims(text) == claims_of(facts)
    cot = parse_cot(text)
    assert cot.style == Style()
    assert any(caption in cot.description for caption in CAPTIONS)


@SETS
def test_every_sentence_about_an_issue_names_its_category_alone(words):
    for label, sentences in words.issues.items():
        for sentence in sentences:
            strengths = [s for degree in words.strengths for s in degree]
            verdicts = [v for degree in words.verdicts[:-1] for v in degree]
            for strength, verdict in zip(cycle(strengths), verdicts, strict=False):
                issues = f"1. {sentence} {strength}\n{verdict}"
                text = chain("1. A small area in the middle left.", issues)
                assert read_claims(text) == Claims((label,), ("left",), False), text
                assert read_facts(text).findings[0].label == label


@SETS
def test_every_way_to_name_a_place_is_understood(words):
    for form in words.regions:
        for where in words.wheres:
            for names in words.places:
                for first, name in zip(PLACES, names, strict=True):
                    for second, other in zip(PLACES, names, strict=True):
                        listed = name if first == second else f"{name} and {other}"
                        phrase = where.format(listed)
                        capital = phrase[0].upper() + phrase[1:]
                        region = form.format(size="small", where=phrase, Where=capital)
                        found = places(f"1. {region}")
                        assert found == tuple(dict.fromkeys((first, second))), region


@SETS
def test_every_way_to_say_that_nothing_is_wrong_is_understood(words):
    for region in words.no_region:
        for issue in words.no_issue:
            for verdict in words.verdicts[-1]:
                assert clean(region, f"{issue}\n{verdict}"), (region, issue)
    for region in words.no_region:
        assert clean(region, "Of note."), region
    for issue in words.no_issue:
        assert clean("Of note.", issue), issue


def sentences(words) -> list[str]:
    plain = [words.regions, words.no_region, words.no_issue, words.descriptions, words.spread]
    nested = [*words.issues.values(), *words.strengths, *words.verdicts, *words.sizes]
    return [sentence for many in (*plain, *nested) for sentence in many]


def test_test_sentences_are_never_seen_in_training():
    assert not set(sentences(TRAIN)) & set(sentences(HELD_OUT))
    assert not set(TRAIN.wheres) & set(HELD_OUT.wheres)
    assert not set(TRAIN.places) & set(HELD_OUT.places)
    for words in (TRAIN, HELD_OUT):
        counts = Counter(sentences(words))
        assert [sentence for sentence, count in counts.items() if count > 1] == []


def test_there_are_several_sentences_for_each_fact():
    assert set(TRAIN.issues) == set(HELD_OUT.issues) == set(LABELS)
    assert min(map(len, TRAIN.issues.values())) >= 8
    assert min(map(len, HELD_OUT.issues.values())) >= 4
    for words in (TRAIN, HELD_OUT):
        assert [*map(len, (words.sizes, words.strengths, words.verdicts))] == [3, 3, 5]
        assert all(len(names) == len(set(names)) == 9 for names in words.places)


def test_a_choice_of_words_gives_no_category_away():
    frames = (
        *("This is an? .* error.", "The problem is one of .*.", "There the .* is wrong."),
        *("Look at the .*: .*.", "Its .* cannot be real.", "A flaw of .*."),
        *("What disturbs is its .*.", "The error concerns the .*."),
    )
    for label in LABELS:
        for frame, sentence in zip(frames, TRAIN.issues[label], strict=True):
            assert re.fullmatch(frame, sentence), sentence
    assert {sentence.split()[0] for sentence in TRAIN.no_region} == {"No"}


def test_each_category_has_its_word_of_short_answers_in_sentences_to_learn():
    for label, word in CATEGORY_WORDS.items():
        if label != UNCATEGORIZED:
            pattern = re.compile(rf"\b{word.removesuffix('s')}s?\b")
            assert sum(pattern.search(one) is not None for one in TRAIN.issues[label]) >= 2, word


def test_places_to_learn_are_rows_and_columns():
    # greedy decoding chooses a row by all of its places, then a column
    for names in TRAIN.places:
        rows = [names[k : k + 3] for k in (0, 3, 6)]
        assert [len({name.split()[0] for name in row}) for row in rows] == [1, 1, 1]
        assert len({row[0].split()[0] for row in rows}) == 3
        top, middle, bottom = ([name.split()[1:] for name in row] for row in rows)
        assert top == bottom
        assert middle == [top[0], [], top[2]]  # the center alone has one word


def test_the_key_alone_decides_the_words():
    facts = Facts((Finding("low-level-color", ("left", "top"), 1, 2),), 1)
    texts = [write_facts(facts, CAPTIONS, f"demo-{k}") for k in range(200)]
    assert texts == [write_facts(facts, CAPTIONS, f"demo-{k}") for k in range(200)]
    assert len(set(texts)) > 190
    used = {
        line.split(". ")[1] for text in texts for line in parse_cot(text).issues.split("\n")[:1]
    }
    assert used == {s.rstrip(".") for s in TRAIN.issues["low-level-color"]}


TEXT = """Sure.\x20
### Image Description
The image is cut from a picture of a red barn by a pond.

### Problematic Regions Identification
1. A large region toward the upper left and upper middle of the picture looks wrong.
2. There is a little spot spread over the image.
So, the potential problematic regions in the image are [MAP]

### Analysis of Issues
1. The problem is one of symbols. The change is drastic.
2. Its inpainted content cannot be real. The change is slight.
So the image as a whole is hardly plausible.
Based on the overall analysis, the plausibility score for this image is [SCORE]."""


def test_a_text_to_the_letter():
    facts = Facts(
        (
            Finding("low-level-symbol", ("upper left", "top"), 2, 2),
            Finding(UNCATEGORIZED, (), 0, 0),
        ),
        0,
    )
    assert write_facts(facts, CAPTIONS, "0") == TEXT


def test_the_example_of_the_documentation():
    found = (
        Finding("low-level-symbol", ("upper left", "top"), 2, 2),
        Finding("low-level-texture", ("center",), 0, 0),
    )
    text = write_facts(Facts(found, 0), CAPTIONS, "9")
    page = Path(__file__).parents[2] / "docs" / "mllm.md"
    assert text[text.index("###") :] in page.read_text()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1. ", "2. "),
        ("[MAP]", "[MAP] of it"),
        ("### Analysis", "## Analysis"),
        ("letters", "Letters"),
        ("\n\n", "\n"),
    ],
)
def test_a_text_that_was_changed_is_not_taken_for_one_of_known_facts(old, new):
    facts = Facts(
        (Finding("low-level-symbol", ("left",), 2, 2), Finding("low-level-color", (), 0, 0)), 0
    )
    for k in range(40):
        text = write_facts(facts, CAPTIONS, str(k))
        if "at the letters" in text:
            break
    assert read_facts(text) == facts
    assert old in text
    assert read_facts(text.replace(old, new, 1)) is None


def test_texts_of_others_have_no_known_facts():
    assert read_facts(TEMPLATE) is None
    assert read_facts("no chain of thought") is None
    assert read_facts(chain("The tree.", "- Its edges dissolve.")) is None
    # the same words, but a fault in an image of full plausibility, or one category twice
    text = write_facts(Facts((Finding("low-level-color", ("left",), 0, 0),), 0), CAPTIONS, "1")
    verdict = parse_cot(text).issues.split("\n")[-1]
    assert read_facts(text.replace(verdict, TRAIN.verdicts[-1][0])) is None
    line = "1. A flaw of colors. Severity: mild.\n2. Its coloring cannot be real. Severity: mild."
    regions = "1. A small area in the middle left.\n2. A small area in the top middle."
    assert read_facts(chain(regions, f"{line}\nPlausibility: low.")) is None
    assert read_facts(
        chain(
            regions,
            f"{line.replace('Its coloring', 'Its writing')}\nPlausibility: low.",
        )
    )


def sample(*boxes, label=1) -> Sample:
    mask = np.zeros((90, 90), np.uint8)
    for top, bottom, left, right, bits in boxes:
        mask[top:bottom, left:right] |= bits
    state = Annotation.MASK if boxes else Annotation.CLEAN
    record = Record("u", label, "x", state, "u.png")
    return Sample(record, np.zeros((90, 90, 3), np.uint8), mask if boxes else None)


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda c: c.short)
def test_texts_made_of_annotations_are_understood(category):
    text = describe_annotation(sample((0, 30, 0, 60, category.bit), (40, 50, 40, 50, 1)))
    found = read_claims(text)
    assert found == Claims((category.label,), ("upper left", "top", "center"), False)
    assert read_claims(describe_annotation(sample(label=0))) == Claims((), (), True)


@pytest.mark.parametrize("text", ["", "Sure. ", "### Analysis of Issues", "[MAP] [SCORE]", "The"])
def test_what_a_repair_adds_is_no_claim(text):
    repaired, notes = repair_cot(text)
    assert notes
    assert read_claims(repaired) == Claims((), (), False)


def test_a_text_without_form_claims_nothing():
    assert read_claims("Nothing is wrong. The texture is off.") == Claims((), (), False)
    assert not read_claims(TEMPLATE).says_clean


@pytest.mark.parametrize(
    ("sentence", "named"),
    [
        ("The textures look fine.", []),
        ("Overall the texture is hardly plausible.", ["textures"]),
        ("Textures, colors and shapes are all natural.", []),
        ("There is no texture problem.", []),
        ("The problem is not one of texture.", []),
        ("This is not a color error.", []),
        ("Nothing is wrong with the shadows.", []),
        ("The texture is free of flaws.", []),
        ("The shadows look right, but the colors are wrong.", ["color"]),
        ("The texture does not look natural.", ["textures"]),
        ("The color is not right.", ["color"]),
        ("No shadow is where it should be.", ["physics"]),
        ("The texture is not free of flaws.", ["textures"]),
        ("No letter looks right.", ["symbols"]),
        ("There is no doubt that the letters are false.", ["symbols"]),
        ("Context and texts differ: a contextual matter.", []),
        ("A light blue spot.", []),
        ("In some parts of the image something is strange.", []),
        ("It shows a delight in colored shapes.", ["color", "edges & shapes"]),
        ("The texture is wrong. Its texture is wrong. The hue, too.", ["textures", "color"]),
    ],
)
def test_what_is_said_of_a_category(sentence, named):
    assert read(sentence) == tuple(BY_SHORT[name] for name in named)


@pytest.mark.parametrize(
    ("sentence", "named"),
    [
        ("Nothing is left of the barn.", []),
        ("Something is not right.", []),
        ("The bird on top of the barn, right beside the left wing.", []),
        ("It is in the right proportions.", []),
        ("To the left of the center barn.", []),
        ("The barn, left over.", []),
        ("Nothing is wrong in the upper left.", []),
        ("The upper left is fine, but the lower right looks odd.", ["lower right"]),
        ("On the right side.", ["right"]),
        ("At the bottom of the image and in the top-right corner.", ["bottom", "upper right"]),
        ("In the center, the left and the upper part.", ["center", "left", "top"]),
        ("In the centre-left third.", ["left"]),
        ("Upper Left; lower left.", ["upper left", "lower left"]),
    ],
)
def test_what_is_said_of_a_place(sentence, named):
    assert places(sentence) == tuple(named)


@pytest.mark.parametrize(
    ("regions", "issues", "says"),
    [
        ("No region looks wrong.", "Nothing is wrong with the image.", True),
        ("No region looks wrong.", "1. Hues are off.", False),
        ("1. A small area in the left.", "Nothing is wrong with the image.", False),
        ("No region looks right.", "Nothing is as it should be.", False),
        ("No part of the image is free of flaws.", "It is not free of flaws.", False),
        ("A barn.", "Nothing is wrong with the colors.", False),
        ("1. A small area spread over the image.", "Nothing is wrong with the image.", False),
        ("A barn.", "A pond.", False),
        ("A barn.", "Plausibility: full.", False),
    ],
)
def test_when_a_text_says_that_nothing_is_wrong(regions, issues, says):
    assert clean(regions, issues) is says


def test_facts_of_a_mask():
    mask = np.zeros((90, 90), np.uint8)
    mask[:30, :30] = 0b10  # a ninth: medium
    mask[60:, 30:] |= 0b10000000  # two ninths: large
    mask[80:, 80:] |= 0b1  # small
    change = np.zeros((90, 90), np.float32)
    change[:30, :30], change[60:, 30:], change[80:, 80:] = 29.9, 30, 50
    facts = find_facts(mask, change, 0.25)
    third = float(np.mean(change[60:, 30:]))
    assert 30 < third < 50
    assert facts == Facts(
        (
            Finding("cognitive-level-physics", ("bottom", "lower right"), 2, 1),
            Finding("low-level-texture", ("upper left",), 1, 0),
            Finding(UNCATEGORIZED, ("lower right",), 0, 2),
        ),
        1,
    )
    assert find_facts(mask, change, 0.2499).plausibility == 0
    assert find_facts(mask, change, 0.75).plausibility == 3
    assert find_facts(np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.float32), 0.9) == UNTOUCHED
    spread = np.full((90, 90), 2, np.uint8)
    assert find_facts(spread, change, 0.1).findings == (Finding("low-level-texture", (), 2, 0),)
    assert replace(facts, findings=()) != UNTOUCHED


def test_long_answers_are_read_in_no_time():
    for word in ("left ", "in the left and ", "no ", "nothing is ", "upper ", "is fine, but "):
        text = chain(word * 4000 + "x", word * 4000 + "x")
        start = perf_counter()
        read_claims(text)
        assert perf_counter() - start < 5, word
