"""Repair of chains of thought: whatever a model wrote can be parsed afterwards."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from artifactnet.types import ArtifactNetError
from artifactnet.vlm.text.chain_of_thought import (
    CLOSING_SENTENCES,
    MAP,
    SCORE,
    TITLES,
    ChainOfThought,
    build_cot,
    parse_cot,
    repair_cot,
)

PARTS = ("A cat on a mat.", "The left paw.", "It has seven toes.\nThe claws melt.")
GOOD = build_cot(ChainOfThought(*PARTS))
NOTHING = ("The image was not described.", "No region was named.", "No issue was named.")
MISSING_MAP, MISSING_SCORE = (f"The mark {mark} was missing." for mark in (MAP, SCORE))


def parts_of(text: str) -> tuple[str, str, str]:
    cot = parse_cot(text)
    return cot.description, cot.regions, cot.issues


def test_valid_text_is_not_changed():
    for text in (GOOD, GOOD.replace("\n", "\r\n"), GOOD.replace("###", "#") + "\n "):
        assert repair_cot(text) == (text, [])


def test_every_truncation_keeps_what_was_written():
    for length in range(len(GOOD) - 1):
        cut = GOOD[:length]
        repaired, notes = repair_cot(cut)
        assert notes
        assert len(set(notes)) == len(notes)
        for found, whole, nothing in zip(parts_of(repaired), PARTS, NOTHING, strict=True):
            assert whole.startswith(found) or found == nothing
        # a sentence that was cut off is completed, not repeated
        for sentence in CLOSING_SENTENCES.values():
            assert repaired.count(sentence) == 1
        assert repaired.count("#") == 9
        assert (MISSING_MAP in notes) == (MAP not in cut)
        assert (MISSING_SCORE in notes) == (SCORE not in cut)
    assert repair_cot(GOOD[:-1]) == (GOOD[:-1], [])


def test_text_cut_off_after_the_parts_is_restored_exactly():
    for start in (len(PARTS[2]), len(PARTS[2]) + 3, len(PARTS[2]) + 20):
        cut = GOOD[: GOOD.index(PARTS[2]) + start]
        assert repair_cot(cut) == (GOOD, [MISSING_SCORE])


def test_empty_text():
    for text in ("", " \n", "Sure", "Sure. \n### Image Desc"):
        repaired, notes = repair_cot(text)
        assert parts_of(repaired) == NOTHING
        assert repaired == build_cot(ChainOfThought(*NOTHING))
        assert {MISSING_MAP, MISSING_SCORE} < set(notes)


CASES = {
    "a second map": (GOOD.replace(MAP, f"{MAP}{MAP}"), PARTS, f"{MAP} was removed"),
    "a map in the issues": (GOOD.replace("seven", f"{MAP}seven"), PARTS, f"{MAP} was removed"),
    "a map in the wrong place": (
        GOOD.replace(MAP, "").replace("seven", f"{MAP}seven"),
        PARTS,
        MISSING_MAP,
    ),
    "an early score": (GOOD.replace("a mat", f"a {SCORE}mat"), PARTS, f"{SCORE} was removed"),
    "a score only at the start": (SCORE + GOOD.replace(SCORE, ""), PARTS, MISSING_SCORE),
    "no map": (GOOD.replace(MAP, ""), PARTS, MISSING_MAP),
    "no sentence with a map": (GOOD.replace(CLOSING_SENTENCES[MAP] + MAP, ""), PARTS, MISSING_MAP),
    "no score": (GOOD.replace(f"{SCORE}.", ""), PARTS, MISSING_SCORE),
    "a heading twice": (
        GOOD.replace("The claws", f"### {TITLES[2]}\nThe claws"),
        (*PARTS[:2], "It has seven toes.\n\nThe claws melt."),
        f"{TITLES[2]!r} was removed",
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
    "a mark cut off": (GOOD[: GOOD.index(MAP) + 3], (*PARTS[:2], NOTHING[2]), "cut off at the end"),
}


@pytest.mark.parametrize("name", CASES)
def test_repairs_are_made_and_reported(name):
    text, expected, note = CASES[name]
    with pytest.raises(ArtifactNetError):
        parse_cot(text)
    repaired, notes = repair_cot(text)
    assert parts_of(repaired) == expected
    assert any(note in one for one in notes)
    assert repair_cot(repaired) == (repaired, [])


PIECES = st.sampled_from(
    [
        *(MAP, SCORE, "[", "]", "MAP]", "[SCO", "\n", "\r\n", " ", "\r", "\x1f"),
        *(":", "**", "#", "x."),
        *(f"\n### {title}\n" for title in TITLES),
        *(f"\n{title}: " for title in TITLES),
        *(f"**{title.upper()}**" for title in TITLES),
        *CLOSING_SENTENCES.values(),
        *("\n### Ana", "regions are", "score is", "So, the po"),
    ]
)
ANYTHING = st.lists(st.one_of(PIECES, PIECES, st.text(max_size=4)), max_size=14).map("".join)


@settings(max_examples=200, deadline=None)
@given(ANYTHING)
@example(GOOD.replace("seven", "[MA[MA[MAP]P]P]"))  # marks within marks
@example(
    "\n### Problematic Regions Identification\nSo, the po"
)  # a cut-off sentence and nothing else
def test_any_text_can_be_parsed_afterwards(text):
    repaired, notes = repair_cot(text)
    parse_cot(repaired)
    assert repair_cot(repaired) == (repaired, [])
    assert (notes == []) == (repaired == text)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(GOOD)), st.integers(0, len(GOOD)), ANYTHING)
def test_damaged_text_can_be_parsed_afterwards(start, stop, noise):
    repaired, _ = repair_cot(GOOD[:start] + noise + GOOD[stop:])
    parse_cot(repaired)
    assert repair_cot(repaired) == (repaired, [])
