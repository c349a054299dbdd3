"""Stage 3: how good a crop looks, by five levels (the rule of Q-Eval-Score; wording is ours)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Protocol

from artifactnet.annotation.qreal.images import Picture
from artifactnet.data.duplicates import hash_bytes
from artifactnet.data.regions import Corners
from artifactnet.llm.client import Answer
from artifactnet.types import UInt8Array

STAGE = "quality"
LEVELS = ("Excellent", "Good", "Fair", "Poor", "Bad")
WEIGHTS = (1.0, 0.75, 0.5, 0.25, 0.0)
PROMPT = (
    "This is a part of an AI-generated image. How good is its visual quality, judging by how real "
    "its colour, material and light look and by how well its parts are formed? Answer with one "
    f"word: {', '.join(LEVELS)}."
)
_VERSION = hash_bytes(json.dumps([PROMPT, LEVELS]).encode()).hex()[:12]


class Scorer(Protocol):
    """Says how strongly a model tends to some words as its answer.

    Attributes:
        identity: what its logits depend on beside image, question and words: the checkpoint.
    """

    identity: str

    def logits(self, image: UInt8Array, question: str, words: Sequence[str]) -> Sequence[float]:
        """Logit of each word at the first place of the answer about an (H, W, 3) image."""


def quality_key(picture: Picture, box: Corners, scorer: str) -> dict[str, str]:
    """Key of a crop's logits in the log."""
    place = json.dumps(box)
    about = {"stage": STAGE, "image": picture.digest, "box": place}
    return {**about, "prompt": _VERSION, "model": scorer}


def score(scorer: Scorer, crop: UInt8Array) -> Answer:
    """Ask a scorer about a crop, in the form of the log."""
    return Answer(json.dumps([float(x) for x in scorer.logits(crop, PROMPT, LEVELS)]), "stop")


def read_quality(answer: Answer) -> float:
    """Quality in [0, 1] of what was logged, with four decimals."""
    return round(level_quality(json.loads(answer.text)), 4)


def level_quality(logits: Sequence[float]) -> float:
    """Expected level: softmax of the logits of `LEVELS`, weighted with `WEIGHTS`.

    Args:
        logits: five finite numbers, of Excellent first.

    Returns:
        In [0, 1].
    """
    largest = max(logits)
    powers = [math.exp(logit - largest) for logit in logits]
    return math.fsum(w * p for w, p in zip(WEIGHTS, powers, strict=True)) / math.fsum(powers)
