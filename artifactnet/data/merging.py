"""One image of several lines: its text from one manifest, its score from another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from artifactnet.data.manifest_lines import Line
from artifactnet.types import Annotation

_ROUNDING = 1e-4  # of scores that two data sets took from one annotator
_Value = TypeVar("_Value")


def merge(lines: Sequence[Line]) -> tuple[list[Line], list[str]]:
    """Put the lines of each image together, so that it is seen once with all that is known of it.

    What one line lacks (text, score, heatmap, mask, categories) is taken from the next that has
    it, in the order given; an image where any line marks artifacts has some.

    Args:
        lines: of one split; those of one image have the same label.

    Returns:
        One line per image, where its first one was, and a warning if lines contradict each other.
    """
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(os.path.normpath(line.image), []).append(line)
    joined = [_joined(group) for group in groups.values()]
    torn = [group[0] for group in groups.values() if _contradict(group)]
    if not torn:
        return joined, []
    return joined, [
        f"{len(torn)} images have lines that differ in score, text or annotation, e.g. "
        f"{torn[0].image}: the first line that has one is believed, artifacts before none"
    ]


def _joined(lines: Sequence[Line]) -> Line:
    """One line of all that are about an image."""
    if len(lines) == 1:
        return lines[0]
    return replace(
        lines[0],
        annotation=max(line.annotation for line in lines),
        heatmap=_first([line.heatmap for line in lines]),
        mask=_first([line.mask for line in lines]),
        score=_first([line.score for line in lines]),
        categories=_first([line.categories or None for line in lines]) or 0,
        text=_first([line.text for line in lines]),
        where=", ".join(line.where for line in lines),
    )


def _first(values: Sequence[_Value | None]) -> _Value | None:
    return next((value for value in values if value is not None), None)


def _contradict(lines: Sequence[Line]) -> bool:
    """Whether lines about one image cannot all be right."""
    states = {line.annotation for line in lines} - {Annotation.NONE}
    texts = {line.text for line in lines} - {None}
    scores = [line.score for line in lines if line.score is not None]
    apart = max(scores, default=0) - min(scores, default=0) > _ROUNDING
    return apart or len(states) > 1 or len(texts) > 1
