"""Prompts of the annotating models, in our own words (HEIE Sec. 3.4, Fig. 3), and answer checks."""

from __future__ import annotations

import json
import re

from artifactnet.data.duplicates import hash_bytes
from artifactnet.llm.client import Answer, Message, assistant_message, user_message
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.text import chain_of_thought
from artifactnet.vlm.text.chain_of_thought import ChainOfThought

# Stage 2 leaves the form free: a prescribed one makes what models write worse (Sec. 3.4).
ANALYSIS = """This image was made by an AI image generator. A person looked for places that could \
not be real or are badly drawn, and circled every one of them with a red line. The red lines are \
not part of the image.

Please work through three steps and write down each.
1. The image: what are its main subjects, what do they do, what surrounds them, in which style?
2. The circled places: for each red line, say which object or part of the body it encloses and \
where in the image that is. Leave out places that are not circled.
3. The defects: look closely at each of these places and explain what is wrong with it and how \
one can see that: shape, number and position of parts, texture, light and shadow, perspective, \
lettering, physics, or how things join.

Write in plain sentences. Do not guess who a person is."""
FORMATTING = """You get a free description of an AI-generated image and of its defects. Rewrite \
it in a fixed form, short and precise, without adding anything that is not in it.

- Three headings, spelled exactly like in the examples: "### Image Description", \
"### Problematic Regions Identification", "### Analysis of Issues".
- The second part names the defective places, in a sentence or two; the third has one line for \
each of them, beginning with "- " and the name of the place.
- The sentence with [MAP] ends the second part and the sentence with [SCORE] ends the third, word \
for word like in the examples. Each mark occurs exactly once.
- Readers see the image without any lines drawn on it: never mention red lines, circles or that \
something was marked.
- Answer with the form alone.

Here is the first description:

"""
_NEXT = "Here is the next description:\n\n"

# Two invented examples: (what stage 2 may write, what stage 3 should make of it).
_EXAMPLES = (
    (
        "1. The image is a photograph-like picture of an elderly man in a green apron who slices "
        "bread at a wooden kitchen table. Behind him there is a window with white curtains, and a "
        "copper pot hangs on the wall.\n2. One red line goes around the man's left hand, which "
        "holds the loaf, in the lower middle. Another encloses the knife in his right hand, and a "
        "third the pot at the upper right.\n3. The hand has six fingers, and two of them grow "
        "together at the tip. The knife's blade changes its width halfway and goes on behind the "
        "bread where it should come out in front. The pot's handle ends in the air; it touches "
        "neither the hook nor the rim.",
        ChainOfThought(
            description="An elderly man in a green apron slices bread at a wooden kitchen table. "
            "Behind him are a window with white curtains and a copper pot on the wall.",
            regions="Issues with the man's left hand on the loaf, the knife in his right hand, "
            "and the copper pot at the upper right.",
            issues="- Left hand: six fingers, two of them fused at the tip.\n"
            "- Knife: blade changes width and continues behind the bread instead of in front.\n"
            "- Copper pot: handle ends in the air, attached to neither hook nor rim.",
        ),
    ),
    (
        "The picture shows a night street in the rain, painted in a comic style, with a yellow "
        "taxi in front of a cinema. Neon light is mirrored by the wet road. The circled areas are "
        "the writing above the entrance of the cinema and the taxi's rear wheel. The sign is "
        "meant to be a title, but the characters are not from any alphabet: some are mirrored, "
        "and the strokes run into one another. As for the wheel, it is not round; its lower third "
        "melts into the road, and there is no shadow under the car at this place.",
        ChainOfThought(
            description="A comic-style night street in the rain: a yellow taxi stands in front of "
            "a cinema, and neon light is mirrored by the wet road.",
            regions="Problems are in the lettering above the cinema's entrance and in the rear "
            "wheel of the taxi.",
            issues="- Cinema lettering: characters of no alphabet, some mirrored, strokes run "
            "into one another.\n"
            "- Rear wheel: not round, its lower third melts into the road, shadow missing.",
        ),
    ),
)

# Models are trained on images without lines: a text that mentions them would train the model to
# describe what is not there. A red line alone may be an object (a flag's circle, a bus line): it
# counts only next to words that say that it marks something.
_DRAWN = (
    r"red\s+(?:dashed\s+|drawn\s+)?"
    r"(?:circle|ring|oval|ellipse|line|loop|outline|contour|boundary|border|marking|annotation)s?\b"
)
_LINES = re.compile(
    rf"\b{_DRAWN}(?:\s+(?:that|which|is|are|drawn|clearly|here))*\s+(?:around|surround|encircl|"
    r"enclos|mark|highlight|indicat|show|denot|point)"
    r"|\b(?:inside|within|outside|enclosed|surrounded|(?:en)?circled|outlined|marked|highlighted|"
    rf"indicated)(?:\s+(?:of|in|with|by|the|a|this|that|these|those|thin|thick))*\s+{_DRAWN}"
    r"|\b(?:the|this|these|each|every)\s+red\s+(?:outline|contour|boundary|annotation)s?\b"
    r"|\bred-?\s?(?:en)?circled\b|\bred[- ](?:outlined|marked)\b"
    r"|\b(?:(?:en)?circled|outlined|marked|highlighted)\s+(?:in|with|by)\s+(?:a\s+|the\s+)?red\b"
    r"|\b(?:(?:en)?circled|outlined|marked|highlighted|annotated)\s+"
    r"(?:areas?|regions?|places?|parts?|sections?|spots?|zones?)\b",
    re.IGNORECASE,
)
_FENCE = re.compile(r"\A\s*```\w*[ \t]*\n(.*?)\n?[ \t]*```\s*\Z", re.DOTALL)


def analysis_messages(jpeg: bytes) -> list[Message]:
    """Stage 2: a free analysis of an image (content of a JPEG file) with circled defects."""
    return [user_message(ANALYSIS, jpeg)]


def formatting_messages(text: str) -> list[Message]:
    """Stage 3: the answer of stage 2 as a chain of thought, with two examples."""
    messages = []
    before = FORMATTING
    for free, parts in _EXAMPLES:
        cot = chain_of_thought.build_cot(parts)
        messages += [user_message(before + free), assistant_message(cot)]
        before = _NEXT
    return [*messages, user_message(before + text)]


def check_analysis(answer: Answer) -> str:
    """The text of a valid answer of stage 2.

    Raises:
        ArtifactNetError: it is empty, was cut off, or filtered.
    """
    text = answer.text.strip()
    if answer.finish == "length":
        raise ArtifactNetError("the answer was cut off at the server's limit of tokens")
    if answer.finish == "content_filter":
        raise ArtifactNetError("the server's content filter stopped the answer")
    if not text:
        raise ArtifactNetError("the answer is empty")
    return text


def check_formatted(answer: Answer) -> str:
    """The chain of thought in a valid answer of stage 3, in the standard form.

    Raises:
        ArtifactNetError: see `check_analysis` and `parse_cot`; or the text mentions the lines
            that were drawn.
    """
    text = check_analysis(answer)
    fenced = _FENCE.match(text)
    parts = chain_of_thought.parse_cot(fenced.group(1) if fenced else text)
    for part in (parts.description, parts.regions, parts.issues):
        if mention := _LINES.search(part):
            raise ArtifactNetError(
                f"it mentions the lines drawn on the image ({mention.group()!r}), which readers do "
                "not see"
            )
    return chain_of_thought.build_cot(
        ChainOfThought(parts.description, parts.regions, parts.issues)
    )


def prompt_version(stage: list[Message]) -> str:
    """12 hexadecimal digits that identify a stage's wording, by its messages for fixed content."""
    return hash_bytes(json.dumps(stage, sort_keys=True).encode()).hex()[:12]
