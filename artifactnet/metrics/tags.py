"""How often the verdict is right with and without each image-level tag (FakeXplainer, Table 7)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from artifactnet.taxonomy import TAGS


class TagAccuracy(NamedTuple):
    """Figures of one tag over generated images; a figure over no image is None."""

    tag: str
    with_tag: float | None  # accuracy over the images that have it, in [0, 1]
    without_tag: float | None  # over those that do not
    share: float | None  # of the images that have it, in [0, 1]; shares do not sum to 1
    images: int  # that have it


def tag_accuracies(tags: Sequence[Iterable[str]], correct: Sequence[bool]) -> list[TagAccuracy]:
    """One row a tag, in the order of `artifactnet.taxonomy.TAGS`.

    Args:
        tags: annotated tags of each generated image, none or several.
        correct: whether the verdict on that image is right.

    Raises:
        ValueError: the lengths differ, or a tag is unknown.
    """
    if len(tags) != len(correct):
        raise ValueError(f"tags of {len(tags)} images for {len(correct)} verdicts")
    held = [frozenset(each) for each in tags]
    unknown = sorted(frozenset().union(*held) - set(TAGS))
    if unknown:
        raise ValueError(f"unknown tag {unknown[0]!r:.80}; known: {', '.join(TAGS)}")
    return [_row(tag, [tag in each for each in held], correct) for tag in TAGS]


def _row(tag: str, has: Sequence[bool], correct: Sequence[bool]) -> TagAccuracy:
    inside = [right for right, held in zip(correct, has, strict=True) if held]
    outside = [right for right, held in zip(correct, has, strict=True) if not held]
    return TagAccuracy(tag, _mean(inside), _mean(outside), _mean(has), len(inside))


def _mean(values: Sequence[bool]) -> float | None:
    return sum(map(bool, values)) / len(values) if values else None
