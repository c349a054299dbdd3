"""Chains of thought: the published file, lenient parsing, strict writing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from artifactnet.types import ArtifactNetError, Rationale
from artifactnet.vlm.text import chain_of_thought
from artifactnet.vlm.text.chain_of_thought import (
    MARKS,
    TITLES,
    ChainOfThought,
    Style,
    build_cot,
    parse_cot,
    parse_rationale,
)

REAL = Path(__file__).parents[2] / "../shared/data/expl_aigi_eval/RichHF-18K_dev.jsonl"
POINTING = "So, the potential problematic regions in the image are [MAP]"
SCORING = "Based on the overall analysis, the plausibility score for this image is [SCORE]."
STANDARD = f"""Sure. \n### Image Description
A cat on a mat.

### Problematic Regions Identification
- Left paw.
- Tail.
{POINTING}

### Analysis of Issues
The paw has seven toes.
{SCORING}"""
PARTS = ("A cat on a mat.", "- Left paw.\n- Tail.", "The paw has seven toes.")
# Fig. 3 of the paper
PAPER = """###Image Description###
Two individuals, an adult with curly hair in a blue shirt and a child ...
###Problematic Regions Identification###

Issues around the adult's eyes and nose, the child's mouth and nose ...
So, the potential problematic regions in the image are [MAP].

###Analysis of Issues###

Adult's Eyes: Inconsistent texture and shading.

Hands: Poor proportions and details, blurred fingers. \n
Based on the overall analysis, the plausibility score for this image is [SCORE].
"""


def parts(cot: ChainOfThought) -> tuple[str, str, str]:
    return cot.description, cot.regions, cot.issues


def by_lines(text: str) -> tuple[str, str, str]:
    """The parts of a real record, found line by line."""
    found: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.startswith("###"):
            found.append([])
        elif not line.startswith(("So, the potential", "Based on the overall")):
            found[-1].append(line)
    opening, *three = ("\n".join(lines).strip() for lines in found)
    assert opening == "Sure."
    description, regions, issues = three
    return description, regions, issues


def test_every_published_record_is_parsed_and_rebuilt():
    if not REAL.is_file():
        pytest.skip(f"{REAL} is not here")
    rows = [json.loads(line) for line in REAL.read_text(encoding="utf-8").split("\n") if line]
    texts = [
        turn["value"] for row in rows for turn in row["conversations"] if turn["from"] == "gpt"
    ]
    assert len(texts) == 995
    styles = set()
    for text in texts:
        cot = parse_cot(text)
        assert build_cot(cot) == text
        assert parts(cot) == by_lines(text)
        for part in parts(cot):
            assert part
            assert part == part.strip()
            assert "#" not in part.split("\n")[0]
            assert not any(line.startswith("#") for line in part.split("\n"))
            assert not any(mark in part for mark in MARKS)
            assert "problematic regions in the image" not in part
            assert "plausibility score" not in part
        assert chain_of_thought.repair_cot(text) == (text, [])
        styles.add(cot.style)
        standard = replace(cot, style=Style())
        assert parse_cot(build_cot(standard)) == standard
    # a style holds layout alone: with content in it there would be as many styles as records
    assert 1 < len(styles) < 10
    assert Style() in styles


def test_standard_form():
    cot = parse_cot(STANDARD)
    assert cot == ChainOfThought(*PARTS)
    assert build_cot(ChainOfThought(*PARTS)) == STANDARD
    assert parse_rationale(STANDARD) == Rationale(*PARTS, STANDARD)


def test_form_printed_in_the_paper():
    cot = parse_cot(PAPER)
    assert cot.description.startswith("Two individuals, ")
    assert cot.regions == "Issues around the adult's eyes and nose, the child's mouth and nose ..."
    assert cot.issues.startswith("Adult's Eyes: ")
    assert cot.issues.endswith("blurred fingers.")
    assert cot.style.before_issues == ".\n\n###Analysis of Issues###\n\n"
    assert build_cot(cot) == PAPER


def each_heading(form: str) -> str:
    text = STANDARD
    for title in TITLES:
        text = text.replace(f"### {title}", form.format(title))
    return text


VARIANTS = {
    "colons": each_heading("### {}:"),
    "colon behind a space": each_heading("### {} :"),
    "spaces behind": each_heading("### {}   "),
    "one hash": each_heading("# {}"),
    "six hashes, no space": each_heading("######{}"),
    "hashes on both sides": each_heading("###{}###"),
    "hashes and a colon": each_heading("### {} ###:"),
    "bold": each_heading("**{}**"),
    "bold with a colon": each_heading("**{}:**"),
    "bold heading": each_heading("### **{}**"),
    "bare with a colon": each_heading("{}:"),
    "bare": each_heading("{}"),
    "indented": each_heading("  ### {}"),
    "upper case": STANDARD.replace(TITLES[0], TITLES[0].upper()).replace(
        TITLES[2], "ANALYSIS OF ISSUES"
    ),
    "lower case": STANDARD.replace(TITLES[1], TITLES[1].lower()),
    "wide": STANDARD.replace("Analysis of Issues", "Analysis  of\tIssues"),
    "content on the heading's line": STANDARD.replace("Description\n", "Description: "),
    "no opening": STANDARD.removeprefix("Sure. \n"),
    "white space around": f"\n \n{STANDARD}\n\n",
    "no empty lines": STANDARD.replace("\n\n", "\n"),
    "full stop behind the map": STANDARD.replace("[MAP]", "[MAP]."),
    "no full stop": STANDARD.removesuffix("."),
    "a line for the mark": STANDARD.replace("are [MAP]", "are\n[MAP]"),
    "sentence behind the part": STANDARD.replace("Tail.\nSo", "Tail. So"),
    "other sentences": STANDARD.replace(POINTING, "The regions are: [MAP]").replace(
        SCORING, "Plausibility score: [SCORE]"
    ),
    "no sentences": STANDARD.replace(POINTING, "[MAP]").replace(SCORING, "[SCORE]"),
    "a word behind the score": STANDARD + "\nThank you.",
}


@pytest.mark.parametrize("name", VARIANTS)
def test_parsing_is_lenient(name):
    text = VARIANTS[name]
    assert text != STANDARD
    assert parts(parse_cot(text)) == PARTS
    assert build_cot(parse_cot(text)) == text


def test_crlf():
    text = STANDARD.replace("\n", "\r\n")
    assert parts(parse_cot(text)) == tuple(part.replace("\n", "\r\n") for part in PARTS)
    assert build_cot(parse_cot(text)) == text


def test_list_that_runs_into_its_mark_is_a_part():
    text = STANDARD.replace(f"Tail.\n{POINTING}", "Tail [MAP]")
    assert parse_cot(text).regions == "- Left paw.\n- Tail"


def test_bold_content_on_the_heading_line_is_kept():
    text = STANDARD.replace("Issues\nThe paw", "Issues: **The** paw")
    assert parse_cot(text).issues == "**The** paw has seven toes."


def test_other_headings_are_content():
    text = STANDARD.replace("- Tail.", "#### Tail\nBent.")
    assert parse_cot(text).regions == "- Left paw.\n#### Tail\nBent."
    with pytest.raises(ArtifactNetError, match="regions"):
        build_cot(parse_cot(text))


BAD = [  # key words of the error, and the text
    (r"\[MAP\].*missing", STANDARD.replace("[MAP]", "[map]")),
    (r"\[MAP\].* 2 ", STANDARD.replace("[MAP]", "[MAP] [MAP]")),
    (r"\[SCORE\].*missing", STANDARD.replace("[SCORE]", "0.5")),
    (r"\[SCORE\].* 3 ", STANDARD + "[SCORE][SCORE]"),
    (f"{TITLES[0]}.*missing", STANDARD.replace("Image D", "A d")),
    (f"{TITLES[2]}.*missing", STANDARD.replace("### Analysis", "By analysis")),
    (f"{TITLES[1]}.* 2 ", STANDARD.replace("Left paw.", f"Left paw.\n### {TITLES[1]}")),
    (
        f"{TITLES[1]}.*before.*{TITLES[0]}",
        STANDARD.replace(TITLES[0], "?").replace(TITLES[1], TITLES[0]).replace("?", TITLES[1]),
    ),
    (r"\[MAP\].*between", STANDARD.replace("[MAP]", "there").replace("seven", "[MAP]")),
    (r"\[SCORE\].*after", STANDARD.replace("[SCORE]", "low").replace("Tail", "[SCORE]")),
    (f"nothing.*{TITLES[0]}", STANDARD.replace(PARTS[0], " ")),
    (f"nothing.*{TITLES[1]}", STANDARD.replace(PARTS[1], "")),
    (f"nothing.*{TITLES[2]}", STANDARD.replace(PARTS[2], "\t")),
]


@pytest.mark.parametrize(("problem", "text"), BAD)
@pytest.mark.parametrize("parse", [parse_cot, parse_rationale])
def test_problem_is_named(parse, problem, text):
    with pytest.raises(ArtifactNetError, match=f"^[^\n]*{problem}[^\n]*$"):
        parse(text)


def test_every_truncation_is_refused():
    for length in range(len(STANDARD) - 1):  # the full stop may be missing
        with pytest.raises(ArtifactNetError):
            parse_cot(STANDARD[:length])


GOOD = ChainOfThought(*PARTS)
UNWRITABLE = [
    ("description.*empty", replace(GOOD, description="")),
    ("regions.*empty", replace(GOOD, regions=" \n")),
    ("white space.*issues", replace(GOOD, issues="toes\n")),
    (r"description.*\[SCORE\]", replace(GOOD, description="a [SCORE]")),
    (r"issues.*\[MAP\]", replace(GOOD, issues="[MAP]")),
    ("regions.*heading", replace(GOOD, regions="x\n ## Tail")),
    ("issues.*heading", replace(GOOD, issues="Image Description: a cat")),
    ("Image Description.*missing", replace(GOOD, style=Style(opening=""))),
    (r"\[MAP\].* 2 ", replace(GOOD, style=Style(closing="[MAP]"))),
    ("regions.*differently", replace(GOOD, style=Style(before_map=" x "))),
    ("description.*differently", replace(GOOD, style=Style(opening=f"### {TITLES[0]}\nA dog. "))),
]


@pytest.mark.parametrize(("problem", "cot"), UNWRITABLE)
def test_writing_is_strict(problem, cot):
    with pytest.raises(ArtifactNetError, match=f"^[^\n]*{problem}[^\n]*$"):
        build_cot(cot)


PIECES = st.sampled_from(
    [
        *("\n", "\r\n", " ", ". ", ":", "- ", "*", "[", "]"),
        *("MAP", "region", "is", "the score is", "are"),
    ]
)
TEXT = st.lists(st.one_of(PIECES, st.text(max_size=6)), min_size=1, max_size=8).map("".join)
PLAIN = TEXT.map(str.strip).filter(lambda text: text and "#" not in text)


@settings(max_examples=80, deadline=None)
@given(PLAIN, PLAIN, PLAIN)
def test_built_text_is_parsed_back(description, regions, issues):
    cot = ChainOfThought(description, regions, issues)
    assume("[MAP]" not in "".join(parts(cot)))
    assert parse_cot(build_cot(cot)) == cot


@settings(max_examples=80, deadline=None)
@given(PLAIN, PLAIN, PLAIN, st.sampled_from(sorted(VARIANTS)))
def test_parsed_text_is_rebuilt(description, regions, issues, name):
    text = VARIANTS[name]
    for old, new in zip(PARTS, (description, regions, issues), strict=True):
        text = text.replace(old, new)
    try:
        cot = parse_cot(text)
    except ArtifactNetError:
        assume(False)
    assert build_cot(cot) == text
