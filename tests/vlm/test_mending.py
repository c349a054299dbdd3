"""Broken chains of thought: whatever a model wrote can be parsed afterwards, and says why."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from artifactnet.types import ArtifactNetError
from artifactnet.vlm.text.chain_of_thought import (
    MAP,
    SCORE,
    SENTENCES,
    TITLES,
    ChainOfThought,
    build,
    complete,
    parse,
)

PARTS = ("A cat on a mat.", "The left paw.", "It has seven toes.\nThe claws melt.")
GOOD = build(ChainOfThought(*PARTS))
NOTHING = ("The image was not described.", "No region was named.", "No issue was named.")
MISSING_MAP, MISSING_SCORE = (f"The mark {mark} was missing." for mark in (MAP, SCORE))


def parts_of(text: str) -> tuple[str, str, str]:
    cot = parse(text)
    return cot.description, cot.regions, cot.issues


def test_a_good_text_is_left_alone():
    for text in (GOOD, GOOD.replace("\n", "\r\n"), GOOD.replace("###", "#") + "\n "):
        assert complete(text) == (text, [])


def test_every_truncation_keeps_what_was_written():
    for length in range(len(GOOD) - 1):
        cut = GOOD[:length]
        mended, notes = complete(cut)
        assert notes
        assert len(set(notes)) == len(notes)
        for found, whole, nothing in zip(parts_of(mended), PARTS, NOTHING, strict=True):
            assert whole.startswith(found) or found == nothing
        # a sentence that was broken off is finished, not said again
        for sentence in SENTENCES.values():
            assert mended.count(sentence) == 1
        assert mended.count("#") == 9
        assert (MISSING_MAP in notes) == (MAP not in cut)
        assert (MISSING_SCORE in notes) == (SCORE not in cut)
    assert complete(GOOD[:-1]) == (GOOD[:-1], [])


def test_what_was_cut_off_behind_a_part_comes_back_to_the_letter():
    for start in (len(PARTS[2]), len(PARTS[2]) + 3, len(PARTS[2]) + 20):
        cut = GOOD[: GOOD.index(PARTS[2]) + start]
        assert complete(cut) == (GOOD, [MISSING_SCORE])


def test_nothing_at_all():
    for text in ("", " \n", "Sure", "Sure. \n### Image Desc"):
        mended, notes = complete(text)
        assert parts_of(mended) == NOTHING
        assert mended == build(ChainOfThought(*NOTHING))
        assert {MISSING_MAP, MISSING_SCORE} < set(notes)


CASES = {
    "a second map": (GOOD.replace(MAP, f"{MAP}{MAP}"), PARTS, f"A {MAP} too many"),
    "a map in the issues": (GOOD.replace("seven", f"{MAP}seven"), PARTS, f"A {MAP} too many"),
    "a map in the wrong place": (
        GOOD.replace(MAP, "").replace("seven", f"{MAP}seven"),
        PARTS,
        MISSING_MAP,
    ),
    "a score before its time": (
        GOOD.replace("a mat", f"a {SCORE}mat"),
        PARTS,
        f"A {SCORE} too many",
    ),
    "a score only at the start": (SCORE + GOOD.replace(SCORE, ""), PARTS, MISSING_SCORE),
    "no map": (GOOD.replace(MAP, ""), PARTS, MISSING_MAP),
    "no sentence with a map": (GOOD.replace(SENTENCES[MAP] + MAP, ""), PARTS, MISSING_MAP),
    "no score": (GOOD.replace(f"{SCORE}.", ""), PARTS, MISSING_SCORE),
    "a heading twice": (
        GOOD.replace("The claws", f"### {TITLES[2]}\nThe claws"),
        (*PARTS[:2], "It has seven toes.\n\nThe claws melt."),
        f"A heading {TITLES[2]!r} too many",
    ),
    "no first heading": (
        GOOD.replace(f"Sure. \n### {TITLES[0]}\n", ""),
        PARTS,
        f"The heading {TITLES[0]!r} was missing.",
    ),
    "no last heading": (
        GOOD.replace(f"### {TITLES[2]}\n", ""),
        PARTS,
        f"The heading {TITLES[2]!r} was missing.",
    ),
    "no second heading": (
        GOOD.replace(f"\n\n### {TITLES[1]}\n", " "),
        (f"{PARTS[0]} {PARTS[1]}", NOTHING[1], PARTS[2]),
        f"Nothing was written under {TITLES[1]!r}.",
    ),
    "an empty part": (
        GOOD.replace(PARTS[1], ""),
        (PARTS[0], NOTHING[1], PARTS[2]),
        f"Nothing was written under {TITLES[1]!r}.",
    ),
    "plain words": (
        "The paw has seven toes.",
        ("The paw has seven toes.", *NOTHING[1:]),
        f"The heading {TITLES[0]!r} was missing.",
    ),
    "marks without headings": (
        f"The paw {MAP}. It has seven toes {SCORE}",
        (NOTHING[0], "The paw", "It has seven toes"),
        f"The heading {TITLES[1]!r} was missing.",
    ),
    "a mark broken off": (
        GOOD[: GOOD.index(MAP) + 3],
        (*PARTS[:2], NOTHING[2]),
        "A heading or mark that was broken off at the end was taken out.",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_mended_and_told(name):
    text, expected, note = CASES[name]
    with pytest.raises(ArtifactNetError):
        parse(text)
    mended, notes = complete(text)
    assert parts_of(mended) == expected
    assert any(said.startswith(note) for said in notes)
    assert complete(mended) == (mended, [])


def test_marks_within_marks():
    mended, _ = complete(GOOD.replace("seven", "[MA[MA[MAP]P]P]"))
    assert parts_of(mended)[2].startswith("It has  toes.")


PIECES = st.sampled_from(
    [
        *(
            MAP,
            SCORE,
            "[",
            "]",
            "MAP]",
            "[SCO",
            "\n",
            "\r\n",
            " ",
            "\r",
            "\x1f",
            ":",
            "**",
            "#",
            "x.",
        ),
        *(f"\n### {title}\n" for title in TITLES),
        *(f"\n{title}: " for title in TITLES),
        *(f"**{title.upper()}**" for title in TITLES),
        *SENTENCES.values(),
        *("\n### Ana", "regions are", "score is", "So, the po"),
    ]
)
ANYTHING = st.lists(st.one_of(PIECES, PIECES, st.text(max_size=4)), max_size=14).map("".join)


@settings(max_examples=200, deadline=None)
@given(ANYTHING)
@example("\n### Problematic Regions Identification\nSo, the po")  # a broken sentence and no more
def test_any_text_can_be_parsed_afterwards(text):
    mended, notes = complete(text)
    parse(mended)
    assert complete(mended) == (mended, [])
    assert (notes == []) == (mended == text)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(GOOD)), st.integers(0, len(GOOD)), ANYTHING)
def test_a_damaged_text_can_be_parsed_afterwards(start, stop, noise):
    mended, _ = complete(GOOD[:start] + noise + GOOD[stop:])
    parse(mended)
    assert complete(mended) == (mended, [])
