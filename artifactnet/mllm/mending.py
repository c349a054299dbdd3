"""Mending of broken chains of thought: what was written stays in its order, the rest is added."""

from __future__ import annotations

import re
from collections.abc import Iterator

from artifactnet.mllm.chain_form import (
    HEADINGS,
    MAP,
    MARKS,
    SCORE,
    SENTENCES,
    TITLES,
    Style,
    last_line,
    part_end,
)

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


def mend(text: str) -> tuple[str, list[str]]:
    """What `artifactnet.mllm.chain_of_thought.complete` does with a text that does not parse."""
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
        any; the text behind each of them by the names used in `mend`.
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
