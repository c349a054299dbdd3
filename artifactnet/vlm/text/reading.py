"""Facts read back from a chain of thought that `artifactnet.vlm.text.writing` wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from artifactnet.types import ArtifactNetError
from artifactnet.vlm.text.chain_of_thought import Style, parse_cot
from artifactnet.vlm.text.facts import UNTOUCHED, Facts, Finding
from artifactnet.vlm.text.places import PLACES
from artifactnet.vlm.text.wordings import HELD_OUT, TRAIN

_SETS = (TRAIN, HELD_OUT)
_NUMBER = re.compile(r"(\d+)\. ")


def read_facts(text: str) -> Facts | None:
    """The facts that a text states; None if `write_facts` cannot have written it.

    Every sentence must be one of `artifactnet.vlm.text.wordings`, to the letter, in its order; only
    the description may be any. So the facts of a text found in a data set can be trusted. What
    models write is read by `artifactnet.vlm.text.claims`.
    """
    try:
        cot = parse_cot(text)
    except ArtifactNetError:
        return None
    if cot.style != Style():
        return None
    *issues, verdict = cot.issues.split("\n")
    plausibility = _sentences("verdicts").get(verdict)
    if plausibility is None:
        return None
    if cot.regions in _alone("no_region") and len(issues) == 1 and issues[0] in _alone("no_issue"):
        return UNTOUCHED if plausibility == UNTOUCHED.plausibility else None
    lines = cot.regions.split("\n")
    if len(lines) != len(issues) or plausibility == UNTOUCHED.plausibility:
        return None
    findings = []
    for number, (region, issue) in enumerate(zip(lines, issues, strict=True), 1):
        where, what = _region(_numbered(region, number)), _issue(_numbered(issue, number))
        if where is None or what is None:
            return None
        findings.append(Finding(what[0], where[0], where[1], what[1]))
    if len({finding.label for finding in findings}) < len(findings):
        return None  # there is one for each category
    return Facts(tuple(findings), plausibility)


def _numbered(line: str, number: int) -> str:
    """The line without its number; empty if that is not ``number``."""
    found = _NUMBER.match(line)
    return line[found.end() :] if found and found[1] == str(number) else ""


def _region(line: str) -> tuple[tuple[str, ...], int] | None:
    """Places and size of a region; None if the line is no such sentence."""
    for pattern in _region_patterns():
        if found := pattern.fullmatch(line):
            places = _places(found["where"])
            return None if places is None else (places, _sizes()[found["size"]])
    return None


def _places(where: str) -> tuple[str, ...] | None:
    """Places of a phrase such as ``in the left and top of the image``; None of any other."""
    where = where[:1].lower() + where[1:]
    if where in _alone("spread"):
        return ()
    for pattern in _where_patterns():
        if found := pattern.fullmatch(where):
            names = re.split(r", | and ", found["names"])
            for known in _place_names():
                if all(name in known for name in names):
                    places = tuple(known[name] for name in names)
                    return places if len(set(places)) == len(places) else None
    return None


def _issue(line: str) -> tuple[str, int] | None:
    """Label and strength of an issue; None if the line is no such sentences."""
    for issue, label in _issue_labels().items():
        if line.startswith(f"{issue} "):
            strength = _sentences("strengths").get(line[len(issue) + 1 :])
            if strength is not None:
                return label, strength
    return None


@cache
def _alone(name: str) -> frozenset[str]:
    """All sentences of a field of `Wording` that holds one list of them."""
    return frozenset(sentence for words in _SETS for sentence in getattr(words, name))


@cache
def _sentences(name: str) -> Mapping[str, int]:
    """Sentence -> class of a field of `Wording` that holds a list for each class."""
    return {
        sentence: index
        for words in _SETS
        for index, sentences in enumerate(getattr(words, name))
        for sentence in sentences
    }


@cache
def _sizes() -> Mapping[str, int]:
    return _sentences("sizes")


@cache
def _issue_labels() -> Mapping[str, str]:
    return {s: label for words in _SETS for label, many in words.issues.items() for s in many}


@cache
def _place_names() -> Sequence[Mapping[str, str]]:
    """Each set of names with the places they stand for."""
    return [dict(zip(names, PLACES, strict=True)) for words in _SETS for names in words.places]


@cache
def _region_patterns() -> Sequence[re.Pattern[str]]:
    slots = {"{size}": f"(?P<size>{_any(_sizes())})", "{where}": "(?P<where>[a-z].*)"}
    slots["{Where}"] = "(?P<where>[A-Z].*)"
    return [_fill(form, slots) for words in _SETS for form in words.regions]


@cache
def _where_patterns() -> Sequence[re.Pattern[str]]:
    names = _any(name for known in _place_names() for name in known)
    several = f"(?P<names>(?:{names})(?:, (?:{names}))*(?: and (?:{names}))?)"
    return [_fill(form, {"{}": several}) for words in _SETS for form in words.wheres]


def _any(words: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


def _fill(form: str, slots: Mapping[str, str]) -> re.Pattern[str]:
    """A sentence with slots as an expression."""
    pieces = re.split(r"(\{\w*\})", form)
    return re.compile("".join(slots.get(piece, re.escape(piece)) for piece in pieces))
