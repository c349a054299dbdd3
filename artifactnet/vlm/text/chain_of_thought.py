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
from collections.abc import Iterator
from dataclasses import dataclass, field

from artifactnet.types import ArtifactNetError, Rationale

MAP = "[MAP]"
SCORE = "[SCORE]"
MARKS = (MAP, SCORE)
TITLES = ("Image Description", "Problematic Regions Identification", "Analysis of Issues")
SENTENCES = {
    MAP: "So, the potential problematic regions in the image are ",
    SCORE: "Based on the overall analysis, the plausibility score for this image is ",
}


@dataclass(frozen=True, slots=True)
class Style:
    """What stands around the three parts, to the letter; by default as in Expl-AIGI-Eval.

    Attributes:
        opening: before the description, its heading included.
        before_regions: from the description's end to the regions.
        before_map: from the regions' end to ``[MAP]``.
        before_issues: from ``[MAP]`` to the issues.
        before_score: from the issues' end to ``[SCORE]``.
        closing: what follows ``[SCORE]``.
    """

    opening: str = f"Sure. \n### {TITLES[0]}\n"
    before_regions: str = f"\n\n### {TITLES[1]}\n"
    before_map: str = f"\n{SENTENCES[MAP]}"
    before_issues: str = f"\n\n### {TITLES[2]}\n"
    before_score: str = f"\n{SENTENCES[SCORE]}"
    closing: str = "."


def _heading(title: str) -> re.Pattern[str]:
    """A title at the start of a line: decorated or bare, then the line's end, ``:`` or ``##``.

    Text may follow on the same line, as in ``Image Description: a cat``.
    """
    words = r"[ \t]+".join(title.split())
    end = r"(?:[ \t]*(?:[#*]+[ \t]*:?|:[#*]*)[ \t]*|[ \t]*(?=\r?$))"
    return re.compile(rf"^[ \t#*]*{words}{end}", re.MULTILINE | re.IGNORECASE | re.ASCII)


HEADINGS = {title: _heading(title) for title in TITLES}
HASHES = re.compile(r"^[ \t]*#", re.MULTILINE)  # any heading, known or not
_SENTENCE = re.compile(r"(?<=[.!?])[ \t]+(?=\S)")

# What a closing sentence speaks of and how it ends. Two searches each: one expression with
# anything in between would take quadratic time on a long line.
_TOPIC = {MAP: re.compile(r"\b(?:regions?|areas?)\b", re.I), SCORE: re.compile(r"\bscore\b", re.I)}
_ENDS = {
    MAP: re.compile(r"\b(?:is|are|at|in)[ \t]*:?\Z", re.I),
    SCORE: re.compile(r"(?:\b(?:is|of|as|score)[ \t]*:?|:)\Z", re.I),
}


def content(text: str, start: int, stop: int) -> tuple[int, int]:
    """``start`` and ``stop`` moved to what lies between them without white space at the ends."""
    inside = text[start:stop]
    begin = start + len(inside) - len(inside.lstrip())
    return begin, max(begin, start + len(inside.rstrip()))


def last_line(text: str) -> int:
    """Where the last line begins, white space at the end not counting."""
    return text.rstrip().rfind("\n") + 1


def part_end(body: str, mark: str) -> int:
    """Where a part ends and its closing sentence begins.

    Args:
        body: what stands between a heading and the part's mark.
        mark: `MAP` or `SCORE`.

    Returns:
        the end of the part; the end of ``body`` where no sentence leads to the mark.
    """
    stop = len(body.rstrip())
    begin = last_line(body)
    line = body[begin:stop]
    begin += max((found.end() for found in _SENTENCE.finditer(line)), default=0)
    sentence = body[begin:stop]
    if _TOPIC[mark].search(sentence) and _ENDS[mark].search(sentence):
        return len(body[:begin].rstrip())
    return stop


_PARTS = ("description", "regions", "issues")
_NOTHING = {
    "description": "The image was not described.",
    "regions": "No region was named.",
    "issues": "No issue was named.",
}
_MARK_END = re.compile(r"\[(?:M(?:AP?)?|S(?:C(?:O(?:RE?)?)?)?)?\Z")
_LINE_END = re.compile(r"\r\n?")
_ODD_SPACE = re.compile(r"[^\S\n\t]")
_FULL_STOP = re.compile(r"[.\s]*")


def repair(text: str) -> tuple[str, list[str]]:
    """What `complete` does with a text that does not parse."""
    notes: list[str] = []
    # one kind of line end and of space: headings are found by them, and are cut at them below
    text = _ODD_SPACE.sub(" ", _LINE_END.sub("\n", text))
    slots = _slots(_without_ragged_end(text, notes))
    for name in ("opening", *_PARTS, "after_map", "closing"):
        slots[name] = _cleaned(slots.get(name, ""), notes)
    heads = [_first_heading(slots, notes), *_later_headings(slots, notes)]
    bodies = [
        _filled(slots["description"], "description", None, notes),
        _closed(_filled(slots["regions"], "regions", MAP, notes), MAP, slots, notes),
        _closed(_filled(slots["issues"], "issues", SCORE, notes), SCORE, slots, notes),
    ]
    bodies = [_on_its_own_line(body) for body in bodies]
    after_map = slots["after_map"].rstrip()
    closing = slots["closing"] or Style().closing
    parts = (*heads[:1], *bodies[:1], *heads[1:2], bodies[1], MAP, after_map, heads[2], bodies[2])
    return "".join((*parts, SCORE, closing)), list(dict.fromkeys(notes))


def _without_ragged_end(text: str, notes: list[str]) -> str:
    """The text without a mark or heading that is broken off at its end."""
    if SCORE in text:
        return text
    whole = text
    text = _MARK_END.sub("", text)
    begin = last_line(text)
    line = text[begin:]
    if line.lstrip().startswith("#") and not any(h.match(line) for h in HEADINGS.values()):
        text = text[:begin]
    if Style().opening.startswith(text.strip()):
        return ""
    if text != whole:
        notes.append("A heading or mark that was broken off at the end was taken out.")
    return text


def _slots(text: str) -> dict[str, str]:
    """The text cut at the first headings and marks that stand in order.

    Returns:
        the headings by title and the marks by themselves, as they are written, where there are
        any; the text behind each of them by the names used in `repair`.
    """
    found = list(_in_order(text))
    names = {TITLES[0]: "description", TITLES[1]: "regions", TITLES[2]: "issues"}
    names |= {MAP: "after_map", SCORE: "closing"}
    kinds = [kind for kind, _, _ in found]
    slots = {kind: text[start:stop] for kind, start, stop in found}
    # what comes first belongs to the step before the first thing found
    first = {TITLES[0]: "opening", MAP: "regions"}.get(kinds[0] if kinds else "", "description")
    edges = [(first, 0), *((names[kind], stop) for kind, _, stop in found)]
    ends = [start for _, start, _ in found] + [len(text)]
    for (name, start), stop in zip(edges, ends, strict=True):
        slots[name] = text[start:stop]
    if MAP in slots and TITLES[0] in slots and TITLES[1] not in slots:
        both = slots["description"]
        cut = part_end(both, MAP)
        slots["description"], slots["regions"] = both[:cut], both[cut:]
    if MAP in slots and TITLES[2] not in slots:
        behind = slots["after_map"]
        cut = _FULL_STOP.match(behind).end()  # type: ignore[union-attr]  # it matches nothing too
        slots["after_map"], slots["issues"] = behind[:cut], behind[cut:]
    return slots


def _in_order(text: str) -> Iterator[tuple[str, int, int]]:
    """(title or mark, start, end) of the first headings and marks that stand in order."""
    spans: dict[str, tuple[int, int]] = {}
    stop = 0
    for title in TITLES:
        found = HEADINGS[title].search(text, stop)
        if found is not None:
            spans[title] = found.span()
            stop = found.end()
    before = max((spans[title][1] for title in TITLES[:2] if title in spans), default=0)
    limit = spans[TITLES[2]][0] if TITLES[2] in spans else len(text)
    at = text.find(MAP, before, limit)
    if at >= 0:
        spans[MAP] = at, at + len(MAP)
    at = text.find(SCORE, max((stop for _, stop in spans.values()), default=0))
    if at >= 0:
        spans[SCORE] = at, at + len(SCORE)
    for kind in (*TITLES[:2], MAP, TITLES[2], SCORE):
        if kind in spans:
            yield (kind, *spans[kind])


def _cleaned(text: str, notes: list[str]) -> str:
    """The text without marks and headings; what arises when one is taken out goes too."""
    before = None
    while before != text:
        before = text
        for mark in MARKS:
            if mark in text:
                notes.append(f"A {mark} too many, or out of place, was taken out.")
                text = text.replace(mark, "")
        for title, heading in HEADINGS.items():
            if heading.search(text):
                notes.append(f"A heading {title!r} too many, or out of place, was taken out.")
                text = heading.sub("", text)
    return text


def _first_heading(slots: dict[str, str], notes: list[str]) -> str:
    if TITLES[0] in slots:
        return slots["opening"] + slots[TITLES[0]].rstrip()
    notes.append(f"The heading {TITLES[0]!r} was missing.")
    return Style().opening.rstrip()


def _later_headings(slots: dict[str, str], notes: list[str]) -> Iterator[str]:
    for title in TITLES[1:]:
        if title not in slots:
            notes.append(f"The heading {title!r} was missing.")
        yield "\n\n" + slots.get(title, f"### {title}").strip()


def _filled(body: str, name: str, mark: str | None, notes: list[str]) -> str:
    """The part without white space at its end; a sentence that says so where there is none."""
    end = len(body.rstrip()) if mark is None else part_end(body, mark)
    if body[:end].strip():
        return body.rstrip() if mark is None else body
    notes.append(f"Nothing was written under {TITLES[_PARTS.index(name)]!r}.")
    if mark is None:
        return f"\n{_NOTHING[name]}"
    return f"\n{_NOTHING[name]}\n{body[end:].lstrip() or SENTENCES[mark]}"


def _on_its_own_line(body: str) -> str:
    return body if body.startswith("\n") else "\n" + body.lstrip()


def _closed(body: str, mark: str, slots: dict[str, str], notes: list[str]) -> str:
    """The part with a sentence that leads to its mark; one that was broken off is finished."""
    if mark in slots:
        return body
    notes.append(f"The mark {mark} was missing.")
    begin = last_line(body)
    line = body[begin:].strip().rstrip(" .")  # the full stop behind a lost mark
    if not line or not SENTENCES[mark].startswith(line):
        return f"{body.rstrip()}\n{SENTENCES[mark]}"
    if body[:begin].strip():
        return body[:begin] + SENTENCES[mark]
    name = "regions" if mark == MAP else "issues"  # the broken sentence was all there was
    notes.append(f"Nothing was written under {TITLES[_PARTS.index(name)]!r}.")
    return f"\n{_NOTHING[name]}\n{SENTENCES[mark]}"


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
        return repair(text)
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
