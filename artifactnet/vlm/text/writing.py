"""Facts about an edited image as a chain of thought, in words that vary from image to image."""

from __future__ import annotations

import random
from collections.abc import Sequence

from artifactnet.vlm.text.chain_of_thought import ChainOfThought, build_cot
from artifactnet.vlm.text.facts import Facts
from artifactnet.vlm.text.places import PLACES
from artifactnet.vlm.text.wordings import HELD_OUT, TRAIN


def write_facts(facts: Facts, captions: Sequence[str], key: str, held_out: bool = False) -> str:
    """A chain of thought that says these facts; `artifactnet.vlm.text.reading` reads them again.

    Description, one line for each region, one for what is wrong there in the same order, and a
    verdict. ``[SCORE]`` stands for the score itself, as in every chain of thought.

    Args:
        facts: what is wrong with the image.
        captions: of the picture that the image was cut from, which differ in words alone; one is
            drawn. Each fits after "a picture of".
        key: decides all that is drawn: same key, same text.
        held_out: the words of `HELD_OUT` instead of those of `TRAIN`.

    Raises:
        ArtifactNetError: a caption cannot be part of a chain of thought.
    """
    words = HELD_OUT if held_out else TRAIN
    rng = random.Random(key)
    description = rng.choice(words.descriptions).format(rng.choice(captions))
    names = dict(zip(PLACES, rng.choice(words.places), strict=True))
    regions, issues = [], []
    for number, finding in enumerate(facts.findings, 1):
        if finding.places:
            where = rng.choice(words.wheres).format(_join([names[p] for p in finding.places]))
        else:
            where = rng.choice(words.spread)
        size = rng.choice(words.sizes[finding.size])
        region = rng.choice(words.regions).format(
            size=size, where=where, Where=where[:1].upper() + where[1:]
        )
        issue = rng.choice(words.issues[finding.label])
        strength = rng.choice(words.strengths[finding.strength])
        regions.append(f"{number}. {region}")
        issues.append(f"{number}. {issue} {strength}")
    if not facts.findings:
        regions.append(rng.choice(words.no_region))
        issues.append(rng.choice(words.no_issue))
    issues.append(rng.choice(words.verdicts[facts.plausibility]))
    return build_cot(ChainOfThought(description, "\n".join(regions), "\n".join(issues)))


def _join(names: Sequence[str]) -> str:
    """E.g. ``left``, ``left and top``, ``left, top and center``."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
