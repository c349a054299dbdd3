"""Chains of thought: parsing them leniently, writing them strictly, repairing broken ones.

A chain of thought is an answer in the form of Expl-AIGI-Eval (HEIE, Sec. 3.3.2, Fig. 3)::

    ### Image Description
    ...
    ### Problematic Regions Identification
    ...
    So, the potential problematic regions in the image are [MAP]

    ### Analysis of Issues
    ...
    Based on the overall analysis, the plausibility score for this image is [SCORE].

`ChainOfThought` is such a text parsed to the letter, for code that reads and writes it. Users see
`artifactnet.types.Rationale`: the same three parts without the layout, next to the whole text.
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
PARTS = ("description", "regions", "issues")
CLOSING_SENTENCES = {
    MAP: "So, the potential problematic regions in the image are ",
    SCORE: "Based on the overall analysis, the plausibility score for this image is ",
}


def _heading(title: str) -> re.Pattern[str]:
    """A title that begins a line, decorated or bare; text may follow ``:`` or ``##`` on it."""
    words = r"[ \t]+".join(title.split())
    end = r"(?:[ \t]*(?:[#*]+[ \t]*:?|:[#*]*)[ \t]*|[ \t]*(?=\r?$))"
    return re.compile(rf"^[ \t#*]*{words}{end}", re.MULTILINE | re.IGNORECASE | re.ASCII)


_HEADINGS = {title: _heading(title) for title in TITLES}
_ANY_HEADING = re.compile(r"^[ \t]*#", re.MULTILINE)
_SENTENCE_START = re.compile(r"(?<=[.!?])[ \t]+(?=\S)")
# What a closing sentence is about and how it ends. Two searches each: one expression with anything
# in between would take quadratic time on a long line.
_TOPIC = {MAP: re.compile(r"\b(?:regions?|areas?)\b", re.I), SCORE: re.compile(r"\bscore\b", re.I)}
_ENDS = {
    MAP: re.compile(r"\b(?:is|are|at|in)[ \t]*:?\Z", re.I),
    SCORE: re.compile(r"(?:\b(?:is|of|as|score)[ \t]*:?|:)\Z", re.I),
}
# for repairs
EMPTY = {  # instead of a part under which nothing was written
    "description": "The image was not described.",
    "regions": "No region was named.",
    "issues": "No issue was named.",
}
_TRUNCATED_MARK = re.compile(r"\[(?:M(?:AP?)?|S(?:C(?:O(?:RE?)?)?)?)?\Z")
_LINE_END = re.compile(r"\r\n?")
_ODD_SPACE = re.compile(r"[^\S\n\t]")
_FULL_STOP = re.compile(r"[.\s]*")


@dataclass(frozen=True, slots=True)
class Style:
    """What is around the three parts, to the letter; by default as in Expl-AIGI-Eval.

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
    before_map: str = f"\n{CLOSING_SENTENCES[MAP]}"
    before_issues: str = f"\n\n### {TITLES[2]}\n"
    before_score: str = f"\n{CLOSING_SENTENCES[SCORE]}"
    closing: str = "."


@dataclass(frozen=True, slots=True)
class ChainOfThought:
    """The parts of one text. Steps 3 and 5 are the marks ``[MAP]`` and ``[SCORE]``."""

    description: str  # step 1, what the image shows
    regions: str  # step 2, where it looks wrong, without the sentence that leads to ``[MAP]``
    issues: str  # step 4, what is wrong there, without the sentence that leads to ``[SCORE]``
    # what is around the parts; the default is the standard form
    style: Style = field(default_factory=Style)


def parse_cot(text: str) -> ChainOfThought:
    """Parse a chain of thought.

    Headings may have any number of ``#`` or ``*`` on both sides, a colon, other letter case, or
    text after them on the same line; lines may end in CRLF; anything may precede the first heading
    and follow ``[SCORE]``. The marks are taken literally. `build_cot` restores the text.

    Raises:
        ArtifactNetError: a heading or mark is missing, duplicated or out of order, or a part is
            empty.
    """
    heads = [_only_heading(text, title) for title in TITLES]
    for before, after, title, following in zip(heads, heads[1:], TITLES, TITLES[1:], strict=False):
        if after.start() < before.end():
            raise ArtifactNetError(f"the heading {following!r} comes before {title!r}")
    at_map, at_score = (_only_mark(text, mark) for mark in MARKS)
    if not heads[1].end() <= at_map < heads[2].start():
        raise ArtifactNetError(f"{MAP} must be between {TITLES[1]!r} and {TITLES[2]!r}")
    if at_score < heads[2].end():
        raise ArtifactNetError(f"{SCORE} must be after {TITLES[2]!r}")
    stops = (
        heads[1].start(),
        heads[1].end() + _part_end(text[heads[1].end() : at_map], MAP),
        heads[2].end() + _part_end(text[heads[2].end() : at_score], SCORE),
    )
    spans = []
    for head, stop, title in zip(heads, stops, TITLES, strict=True):
        inside = text[head.end() : stop]
        if not inside.strip():
            raise ArtifactNetError(f"nothing is written under {title!r}")
        start = head.end() + len(inside) - len(inside.lstrip())
        spans.append((start, head.end() + len(inside.rstrip())))
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


def build_cot(cot: ChainOfThought) -> str:
    """Write a chain of thought such that `parse_cot` returns ``cot`` again.

    Raises:
        ArtifactNetError: a part is empty, or holds a mark, a heading, or white space at its ends;
            or the style does not fit: it lacks or duplicates a heading, or is parsed as a part.
    """
    for name in PARTS:
        part = getattr(cot, name)
        if not part.strip():
            raise ArtifactNetError(f"chain of thought: the {name} must not be empty")
        if part != part.strip():
            raise ArtifactNetError(f"chain of thought: strip outer white space off the {name}")
        for mark in MARKS:
            if mark in part:
                raise ArtifactNetError(f"chain of thought: the {name} must not hold {mark}")
        if _ANY_HEADING.search(part) or any(h.search(part) for h in _HEADINGS.values()):
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
        parsed = parse_cot(text)
    except ArtifactNetError as error:
        raise ArtifactNetError(f"chain of thought: style and parts do not fit: {error}") from None
    for name in (*PARTS, "style"):
        if getattr(parsed, name) != getattr(cot, name):
            raise ArtifactNetError(
                f"chain of thought: the {name} would be parsed differently; the style must hold "
                "the headings and the closing sentences, and the parts none of them"
            )
    return text


def parse_rationale(text: str) -> Rationale:
    """The parts of a chain of thought, for people.

    Raises:
        ArtifactNetError: see `parse_cot`; `repair_cot` makes any text parse.
    """
    cot = parse_cot(text)
    return Rationale(cot.description, cot.regions, cot.issues, text)


def repair_cot(text: str) -> tuple[str, list[str]]:
    """Repair a generated text, so that it can be parsed and its marks can be read.

    A text that `parse_cot` accepts is not changed. Otherwise what is missing is added in the words
    of the standard form where it belongs; duplicated or misplaced marks and headings are removed,
    and so is a heading or mark that is cut off at the end.

    Returns:
        A text that `parse_cot` accepts, and a sentence for each repair.
    """
    try:
        parse_cot(text)
    except ArtifactNetError:
        pass
    else:
        return text, []
    notes: list[str] = []
    # one kind of line end and of space: headings are found by them, and are cut at them below
    text = _ODD_SPACE.sub(" ", _LINE_END.sub("\n", text))
    slots = _split(_without_truncated_end(text, notes))
    for name in ("opening", *PARTS, "after_map", "closing"):
        slots[name] = _without_marks_and_headings(slots.get(name, ""), notes)
    if TITLES[0] in slots:
        heads = [slots["opening"] + slots[TITLES[0]].rstrip()]
    else:
        notes.append(f"The heading {TITLES[0]!r} was missing.")
        heads = [Style().opening.rstrip()]
    for title in TITLES[1:]:
        if title not in slots:
            notes.append(f"The heading {title!r} was missing.")
        heads.append("\n\n" + slots.get(title, f"### {title}").strip())
    bodies = []
    for name, mark in zip(PARTS, (None, MAP, SCORE), strict=True):
        body = _filled(slots[name], name, mark, notes)
        if mark is not None and mark not in slots:
            body = _closed(body, name, mark, notes)
        bodies.append(body if body.startswith("\n") else "\n" + body.lstrip())
    after_map = slots["after_map"].rstrip()
    closing = slots["closing"] or Style().closing
    pieces = (heads[0], bodies[0], heads[1], bodies[1], MAP, after_map, heads[2], bodies[2], SCORE)
    return "".join((*pieces, closing)), list(dict.fromkeys(notes))


def _only_heading(text: str, title: str) -> re.Match[str]:
    found = list(_HEADINGS[title].finditer(text))
    if len(found) != 1:
        count = f"there {len(found)} times" if found else "missing"
        raise ArtifactNetError(f"the heading {title!r} is {count}; it must be there once")
    return found[0]


def _only_mark(text: str, mark: str) -> int:
    if (count := text.count(mark)) != 1:
        found = f"there {count} times" if count else "missing"
        raise ArtifactNetError(f"the mark {mark} is {found}; it must be there once")
    return text.index(mark)


def _last_line(text: str) -> int:
    """Where the last line begins, ignoring white space at the end."""
    return text.rstrip().rfind("\n") + 1


def _part_end(body: str, mark: str) -> int:
    """Where a part ends and the closing sentence that leads to its mark begins, if there is one.

    ``body`` is the text between a heading and the part's mark.
    """
    stop = len(body.rstrip())
    begin = _last_line(body)
    line = body[begin:stop]
    begin += max((found.end() for found in _SENTENCE_START.finditer(line)), default=0)
    sentence = body[begin:stop]
    if _TOPIC[mark].search(sentence) and _ENDS[mark].search(sentence):
        return len(body[:begin].rstrip())
    return stop


def _without_truncated_end(text: str, notes: list[str]) -> str:
    """The text without a mark or heading that is cut off at its end."""
    if SCORE in text:
        return text
    whole = text
    text = _TRUNCATED_MARK.sub("", text)
    begin = _last_line(text)
    line = text[begin:]
    if line.lstrip().startswith("#") and not any(h.match(line) for h in _HEADINGS.values()):
        text = text[:begin]
    if Style().opening.startswith(text.strip()):
        return ""
    if text != whole:
        notes.append("A heading or mark that was cut off at the end was removed.")
    return text


def _split(text: str) -> dict[str, str]:
    """The text cut at the first headings and marks that are in order.

    Headings (by title) and marks as written, if present; the text after each by its part's name.
    """
    found = list(_in_order(text))
    names = {TITLES[0]: "description", TITLES[1]: "regions", TITLES[2]: "issues"}
    names |= {MAP: "after_map", SCORE: "closing"}
    kinds = [kind for kind, _, _ in found]
    slots = {kind: text[start:stop] for kind, start, stop in found}
    # the beginning belongs to the step before the first thing found
    first = {TITLES[0]: "opening", MAP: "regions"}.get(kinds[0] if kinds else "", "description")
    starts = [(first, 0), *((names[kind], stop) for kind, _, stop in found)]
    ends = [start for _, start, _ in found] + [len(text)]
    for (name, start), stop in zip(starts, ends, strict=True):
        slots[name] = text[start:stop]
    if MAP in slots and TITLES[0] in slots and TITLES[1] not in slots:
        both = slots["description"]
        cut = _part_end(both, MAP)
        slots["description"], slots["regions"] = both[:cut], both[cut:]
    if MAP in slots and TITLES[2] not in slots:
        rest = slots["after_map"]
        cut = _FULL_STOP.match(rest).end()  # type: ignore[union-attr]  # it matches nothing too
        slots["after_map"], slots["issues"] = rest[:cut], rest[cut:]
    return slots


def _in_order(text: str) -> Iterator[tuple[str, int, int]]:
    """(title or mark, start, end) of the first headings and marks that are in order."""
    spans: dict[str, tuple[int, int]] = {}
    stop = 0
    for title in TITLES:
        found = _HEADINGS[title].search(text, stop)
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


def _without_marks_and_headings(text: str, notes: list[str]) -> str:
    """The text without marks and headings, nor any that arise when one is removed."""
    before = None
    while before != text:
        before = text
        for mark in MARKS:
            if mark in text:
                notes.append(f"An extra or misplaced {mark} was removed.")
                text = text.replace(mark, "")
        for title, heading in _HEADINGS.items():
            if heading.search(text):
                notes.append(f"An extra or misplaced heading {title!r} was removed.")
                text = heading.sub("", text)
    return text


def _filled(body: str, name: str, mark: str | None, notes: list[str]) -> str:
    """The part without white space at its end, or a sentence that it is empty."""
    end = len(body.rstrip()) if mark is None else _part_end(body, mark)
    if body[:end].strip():
        return body.rstrip() if mark is None else body
    notes.append(_note_empty(name))
    if mark is None:
        return f"\n{EMPTY[name]}"
    return f"\n{EMPTY[name]}\n{body[end:].lstrip() or CLOSING_SENTENCES[mark]}"


def _closed(body: str, name: str, mark: str, notes: list[str]) -> str:
    """The part with a sentence that leads to its missing mark; a cut-off sentence is completed."""
    notes.append(f"The mark {mark} was missing.")
    begin = _last_line(body)
    line = body[begin:].strip().rstrip(" .")  # the full stop after a lost mark
    if not line or not CLOSING_SENTENCES[mark].startswith(line):
        return f"{body.rstrip()}\n{CLOSING_SENTENCES[mark]}"
    if body[:begin].strip():
        return body[:begin] + CLOSING_SENTENCES[mark]
    notes.append(_note_empty(name))  # the cut-off sentence was all there was
    return f"\n{EMPTY[name]}\n{CLOSING_SENTENCES[mark]}"


def _note_empty(name: str) -> str:
    return f"Nothing was written under {TITLES[PARTS.index(name)]!r}."
