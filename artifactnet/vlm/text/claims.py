"""What a text claims to be wrong with an image, read from any words: also from a model's own.

Sentence by sentence: what calls something fine is set aside, in the others the words that belong to
one category are looked for, and the words for places. It understands all sentences of
`artifactnet.vlm.text.wordings` and those made from annotations
(`artifactnet.vlm.text.template`); of other texts it may miss what they say in other words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from artifactnet.metrics.claims import Claims
from artifactnet.taxonomy import UNCATEGORIZED
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.text.chain_of_thought import EMPTY, MAP, SCORE, parse_cot
from artifactnet.vlm.text.facts import Facts
from artifactnet.vlm.text.places import PLACES, ROW_FIRST
from artifactnet.vlm.text.template import CATEGORY_WORDS, CLEAN_WORD

_COLORS = "blue|gr[ae]y|green|brown|red|pink|purple|yellow|orange|white|colou?red"
_SHOWN = "image|picture|photo|photograph|frame|scene|crop"
# words that name a category; nothing else in a sentence of ours does
_CUES = {
    "low-level-texture": r"textur\w+|surfaces?|grain\w*|true material",
    "low-level-edge_shape": r"edges?|outlines?|contours?|shapes?|silhouettes?",
    "low-level-symbol": (
        r"symbols?|letters?|lettering|writing|characters?|glyphs?|script|text|illegible|gibberish"
    ),
    "low-level-color": r"(?:mis|dis)?colou?r(?:s|ed|ing|ation)?|hues?|tints?|palette",
    "high-level-semantics": (
        rf"semantic\w*|parts(?! of the (?:{_SHOWN})\b)|components?|make-?up|makes up|anatomy"
    ),
    "cognitive-level-commonsense": (
        r"common[ -]?sense|commonsense|scale|out of (?:place|scale|proportion)"
        r"|everyday experience|where it cannot be"
    ),
    "cognitive-level-physics": (
        rf"physic\w*|shadows?|shading|reflections?|lighting|light(?! (?:{_COLORS})\b)"
        r"|optic\w*|illuminat\w+"
    ),
    UNCATEGORIZED: (
        r"repainted|inpaint\w*|painted (?:in|over)|redrawn|neural|networks?|synthesi[sz]ed"
        r"|generated content|a generator|machine-made"
    ),
}
_CATEGORY = re.compile(
    r"\b(?:" + "|".join(f"(?P<c{k}>{cue})" for k, cue in enumerate(_CUES.values())) + r")\b"
)
_LABELS = tuple(_CUES)

# Sentences that deny. Two that deny each other ("no region looks right") deny nothing.
_FAULT = (
    r"(?:regions?|areas?|parts?|places?|spots?|artifacts?|defects?|issues?|flaws?|faults?|errors?"
    r"|problems?|mistakes?|anomal(?:y|ies)|inconsistenc(?:y|ies)|damage)"
)
_ABSENT = re.compile(
    rf"\b(?:no|not a single|not any|not one|none of the|neither|never|without(?: any)?)"
    rf"(?: [\w&/-]+){{0,3}}? {_FAULT}\b"
    rf"|\bnot (?:an?|one of|any) (?:[\w&/-]+ ){{0,2}}?{_FAULT}\b"
    r"|\bnot (?:one|a matter|a question) of\b"
    r"|\bnothing\b(?: \w+){0,5}? (?:wrong|out of order|amiss|odd|suspicious|implausible)\b"
    r"|\bnothing to \w+"
)
_GOOD = (
    r"(?:fine|correct|right|natural|plausible|intact|normal|consistent|sound|realistic|real"
    r"|undamaged|unchanged|flawless|credible|in order|free (?:of|from)|as (?:it|they) should be"
    r"|the way (?:it|they) (?:is|are|does|do))"
)
_FINE = re.compile(
    r"(?<!not )(?<!n't )(?<!hardly )(?<!never )(?<!nothing )(?<!none )"
    r"\b(?:is|are|looks?|seems?|appears?)"
    r"(?: (?:all|also|both|perfectly|entirely|completely|fully|very|quite|otherwise))?"
    rf" {_GOOD}\b"
)
_NOBODY = re.compile(r"\b(?:no|nothing|none|neither|not a single)\b(?! doubt\b)")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n")
_TURN = re.compile(
    r",?\s*\b(?:but|however|although|though|while|whereas|yet|except(?: for)?|instead)\b,?\s*"
)
_BULLET = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s*")
# what a repair wrote, not the model
_UNSAID = {sentence.lower() for sentence in EMPTY.values()}

# Places. Words of one meaning, then what has to stand around those that may mean something else.
_VERTICAL = {"upper": 0, "top": 0, "lower": 2, "bottom": 2}
_LEVEL = {"left": 0, "right": 2}
_MIDDLE = r"(?:middle|center|centre|central|mid)"
_ROOM = rf"(?:part|side|edge|third|ninth|area|region|half|end|border|of the (?:{_SHOWN}))"
_PLACE = re.compile(
    rf"\b(?:(?P<v>upper|top|lower|bottom)[ -](?P<h>left|right)"
    rf"|{_MIDDLE}[ -](?P<mh>left|right)"
    rf"|(?P<hm>left|right)[ -]{_MIDDLE}"
    rf"|(?P<vm>upper|top|lower|bottom)[ -]{_MIDDLE}"
    rf"|(?P<one>left|right|top|bottom|upper|lower|{_MIDDLE}))\b"
    r"(?: (?:hand|corner))?"
)
_BEFORE = re.compile(
    r"(?:^|:\s*|\b(?:in|at|on|near|to|toward|towards|around|along|across|by)"
    r" the (?:far |very |extreme )?)$"
)
_BEFORE_REACH = 32  # characters that `_BEFORE` may take, and more
_LISTED = re.compile(rf"(?: {_ROOM})?(?:,| and|, and| or)(?: the| in the| at the)? $")
_AFTER = re.compile(rf" {_ROOM}\b|\s*$|\s*[,.;:)]| (?:and|or|is|are|looks?|seems?|appears?)\b")
_SPREAD = re.compile(r"\b(?:spread|scattered|dispersed|distributed|all) (?:over|across)\b")
_SHORT_LABELS = {word: label for label, word in CATEGORY_WORDS.items()}
_SHORT_PLACES = dict(zip(ROW_FIRST, PLACES, strict=True)) | {"spread": ""}
_NAMES = (
    ("upper left", "top", "upper right"),
    ("left", "center", "right"),
    ("lower left", "bottom", "lower right"),
)


def read_claims(text: str) -> Claims:
    """What a chain of thought claims; a text that is none claims nothing, and nothing is right.

    Categories are read under the analysis, places under the regions, each in the order in which
    they are first named.
    """
    try:
        cot = parse_cot(text)
    except ArtifactNetError:
        return Claims((), (), False)
    categories: list[str] = []
    places: list[str] = []
    denied = spread = False
    for sentence, fine in _sentences(cot.regions):
        named = _places(sentence)
        spread |= not fine and _SPREAD.search(sentence) is not None
        denied |= fine and not named
        places += [] if fine else named
    for sentence, fine in _sentences(cot.issues):
        found = _categories(sentence)
        denied |= fine and not found
        categories += [] if fine else found
    clean = denied and not spread and not categories and not places
    return Claims(tuple(dict.fromkeys(categories)), tuple(dict.fromkeys(places)), clean)


def read_short_answer(text: str) -> tuple[Claims, bool]:
    """What a short answer claims, and whether it has the form to the letter.

    The form is that of `artifactnet.vlm.text.template.answer_shortly`. Of other texts, words that
    stand where a category or a place is named count all the same, up to ``[MAP]``.
    """
    answer = text.split(MAP)[0].strip()
    strict = text.strip() == f"{answer} {MAP}{SCORE}"
    if answer == CLEAN_WORD:
        return Claims((), (), True), strict
    found = [part.partition(", ") for part in answer.split("; ")]
    known = all(word in _SHORT_LABELS and where in _SHORT_PLACES for word, _, where in found)
    categories = [_SHORT_LABELS[word] for word, _, _ in found if word in _SHORT_LABELS]
    places = [_SHORT_PLACES[where] for _, _, where in found if _SHORT_PLACES.get(where)]
    claims = Claims(tuple(dict.fromkeys(categories)), tuple(dict.fromkeys(places)), False)
    return claims, strict and known


def claims_of(facts: Facts) -> Claims:
    """What a text claims that states these facts and nothing else."""
    categories = [finding.label for finding in facts.findings]
    places = [place for finding in facts.findings for place in finding.places]
    return Claims(tuple(categories), tuple(dict.fromkeys(places)), not facts.findings)


def _sentences(part: str) -> Iterator[tuple[str, bool]]:
    """Each statement in lower case, and whether it calls something fine."""
    for line in _SENTENCE.split(part):
        for piece in _TURN.split(_BULLET.sub("", line).lower()):
            sentence = " ".join(piece.split())
            if sentence and sentence not in _UNSAID:
                yield sentence, _is_fine(sentence)


def _is_fine(sentence: str) -> bool:
    absent, fine = bool(_ABSENT.search(sentence)), bool(_FINE.search(sentence))
    if fine and _NOBODY.search(sentence):
        return False  # "no region looks right", "nothing is right"
    return absent or fine


def _categories(sentence: str) -> list[str]:
    """Labels of the categories that a sentence names."""
    return [
        _LABELS[int(name[1:])]
        for found in _CATEGORY.finditer(sentence)
        for name, word in found.groupdict().items()
        if word is not None
    ]


def _places(sentence: str) -> list[str]:
    """Names of the places in a sentence; words like "left" count only where they mean a place."""
    names: list[str] = []
    end = -1  # of the place before
    for found in _PLACE.finditer(sentence):
        if found["one"]:
            listed = end >= 0 and _LISTED.fullmatch(sentence, end, found.start())
            nearby = max(0, found.start() - _BEFORE_REACH)
            if not listed and not _BEFORE.search(sentence, nearby, found.start()):
                continue
            if not _AFTER.match(sentence, found.end()):
                continue
        names.append(_name(found))
        end = found.end()
    return names


def _name(found: re.Match[str]) -> str:
    """The place of `PLACES` that a match of ``_PLACE`` means."""
    vertical = found["v"] or found["vm"] or found["one"]
    level = found["h"] or found["mh"] or found["hm"] or found["one"]
    return _NAMES[_VERTICAL.get(vertical or "", 1)][_LEVEL.get(level or "", 1)]
