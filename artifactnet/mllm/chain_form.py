"""How a chain of thought is laid out: its marks, headings and closing sentences, found in a text.

HEIE, Sec. 3.3.2 and Fig. 3: three titled parts; the second one closes with the sentence that holds
``[MAP]``, the third one with that of ``[SCORE]``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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
