"""Chains of thought: read tolerantly, written strictly, mended where a model broke off.

A chain of thought is an answer in the form of Expl-AIGI-Eval (HEIE, Sec. 3.3.2, Fig. 3)::

    ### Image Description
    ...
    ### Problematic Regions Identification
    ...
    So, the potential problematic regions in the image are [MAP]

    ### Analysis of Issues
    ...
    Based on the overall analysis, the plausibility score for this image is [SCORE].
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from artifactnet.mllm.chain_form import (
    HASHES,
    HEADINGS,
    MAP,
    MARKS,
    SCORE,
    TITLES,
    Style,
    content,
    part_end,
)
from artifactnet.mllm.mending import mend
from artifactnet.types import ArtifactNetError, Rationale

__all__ = ["MAP", "SCORE", "ChainOfThought", "Style", "build", "complete", "parse", "rationale"]

_NAMES = ("description", "regions", "issues")


@dataclass(frozen=True, slots=True)
class ChainOfThought:
    """The parts of one text. Steps 3 and 5 are the marks ``[MAP]`` and ``[SCORE]``.

    Attributes:
        description: step 1, what the image shows.
        regions: step 2, where it looks wrong, without the sentence that leads to ``[MAP]``.
        issues: step 4, what is wrong there, without the sentence that leads to ``[SCORE]``.
        style: what stands around the parts; the default writes the standard form.
    """

    description: str
    regions: str
    issues: str
    style: Style = field(default_factory=Style)


def parse(text: str) -> ChainOfThought:
    """Read a chain of thought.

    Headings may have any number of ``#`` or ``*`` on both sides, a colon, other letter case, or
    text behind them on the same line; lines may end in CRLF; what stands before the first heading
    and after ``[SCORE]`` is free. The marks are taken literally. `build` gives the same text again.

    Args:
        text: what a person or a model wrote.

    Returns:
        the parts, without white space at their ends.

    Raises:
        ArtifactNetError: a heading or mark is missing, there more than once or out of order, or a
            part is empty.
    """
    heads = [_only_heading(text, title) for title in TITLES]
    for before, after, title, following in zip(heads, heads[1:], TITLES, TITLES[1:], strict=False):
        if after.start() < before.end():
            raise ArtifactNetError(f"the heading {following!r} stands before {title!r}")
    at_map, at_score = (_only_mark(text, mark) for mark in MARKS)
    if not heads[1].end() <= at_map < heads[2].start():
        raise ArtifactNetError(f"{MAP} must stand between {TITLES[1]!r} and {TITLES[2]!r}")
    if at_score < heads[2].end():
        raise ArtifactNetError(f"{SCORE} must stand after {TITLES[2]!r}")
    stops = (
        heads[1].start(),
        heads[1].end() + part_end(text[heads[1].end() : at_map], MAP),
        heads[2].end() + part_end(text[heads[2].end() : at_score], SCORE),
    )
    spans = [content(text, h.end(), stop) for h, stop in zip(heads, stops, strict=True)]
    for (start, stop), title in zip(spans, TITLES, strict=True):
        if start == stop:
            raise ArtifactNetError(f"nothing is written under {title!r}")
    (d0, d1), (r0, r1), (i0, i1) = spans
    style = Style(
        opening=text[:d0],
        before_regions=text[d1:r0],
        before_map=text[r1:at_map],
        before_issues=text[at_map + len(MAP) : i0],
        before_score=text[i1:at_score],
        closing=text[at_score + len(SCORE) :],
    )
    return ChainOfThought(text[d0:d1], text[r0:r1], text[i0:i1], style)


def build(cot: ChainOfThought) -> str:
    """Write a chain of thought, so that `parse` gives ``cot`` again.

    Args:
        cot: parts without marks, headings, or white space at their ends.

    Raises:
        ArtifactNetError: a part is empty or holds any of those, or the style is none: what stands
            around the parts lacks a heading, doubles one, or would be taken for a part.
    """
    for name in _NAMES:
        part = getattr(cot, name)
        if not part.strip():
            raise ArtifactNetError(f"chain of thought: the {name} must not be empty")
        if part != part.strip():
            raise ArtifactNetError(f"chain of thought: strip the {name} of outer white space")
        for mark in MARKS:
            if mark in part:
                raise ArtifactNetError(f"chain of thought: the {name} must not hold {mark}")
        if HASHES.search(part) or any(heading.search(part) for heading in HEADINGS.values()):
            raise ArtifactNetError(f"chain of thought: the {name} must not hold a heading")
    style = cot.style
    text = "".join(
        (
            *(style.opening, cot.description),
            *(style.before_regions, cot.regions, style.before_map, MAP),
            *(style.before_issues, cot.issues, style.before_score, SCORE, style.closing),
        )
    )
    try:
        back = parse(text)
    except ArtifactNetError as error:
        raise ArtifactNetError(f"chain of thought: style and parts do not fit: {error}") from None
    if back != cot:
        name = next(
            name for name in (*_NAMES, "style") if getattr(back, name) != getattr(cot, name)
        )
        raise ArtifactNetError(
            f"chain of thought: the {name} would be read back differently; the style must hold "
            "the headings and the closing sentences, and the parts none of them"
        )
    return text


def complete(text: str) -> tuple[str, list[str]]:
    """Mend what a model wrote, so that it can be parsed and its marks can be read.

    A text that `parse` accepts is left alone. Otherwise what is missing is added in the words of
    the standard form where it belongs; marks and headings that are there more than once, or out
    of order, are taken out, and so is a heading or mark broken off at the end.

    Args:
        text: any text.

    Returns:
        a text that `parse` accepts, and a sentence for each thing that was mended.
    """
    try:
        parse(text)
    except ArtifactNetError:
        return mend(text)
    return text, []


def rationale(text: str) -> Rationale:
    """The parts of a chain of thought, for people.

    Raises:
        ArtifactNetError: see `parse`; `complete` makes any text parse.
    """
    cot = parse(text)
    return Rationale(cot.description, cot.regions, cot.issues, text)


def _only_heading(text: str, title: str) -> re.Match[str]:
    found = list(HEADINGS[title].finditer(text))
    if len(found) != 1:
        count = f"{len(found)} times" if found else "missing"
        raise ArtifactNetError(f"the heading {title!r} is {count}; it must be there once")
    return found[0]


def _only_mark(text: str, mark: str) -> int:
    count = text.count(mark)
    if count != 1:
        raise ArtifactNetError(
            f"the mark {mark} is {f'{count} times' if count else 'missing'}; it must be there once"
        )
    return text.index(mark)
