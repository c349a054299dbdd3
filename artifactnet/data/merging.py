"""One image of several lines: its heatmap from one manifest, its score from another."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from artifactnet.data.manifest_lines import Line
from artifactnet.types import Annotation

_ROUNDING = 1e-4  # of scores that two data sets took from one annotator
_Value = TypeVar("_Value")


def merge(
    lines: Sequence[Line], generators: Container[str], *, skip: bool = False
) -> tuple[list[Line], list[str]]:
    """Put the lines of each image together, so that it is seen once with all that is known of it.

    Lines with a wanted generator come first, then the order given. What one line lacks (text,
    score, heatmap, mask, categories) is taken from the next that has it; an image where any line
    marks artifacts has some.

    Args:
        lines: those of one image have the same label.
        generators: that are wanted; images of which no line names one are left out.
        skip: a heatmap or mask whose file is not there gives way to one that is.

    Returns:
        One line per image, where its first one was, and a warning if lines contradict each other.
    """
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.place, []).append(line)
    joined, torn = [], []
    for group in groups.values():
        group.sort(key=lambda line: line.generator not in generators)
        if group[0].generator in generators:
            joined.append(_joined(group, skip))
            torn += [f"{group[0].image} ({', '.join(named)})" for named in [_apart(group)] if named]
    if not torn:
        return joined, []
    return joined, [
        f"{len(torn)} images have lines that contradict each other, e.g. {torn[0]}: the first that "
        "says anything is believed, artifacts before none"
    ]


def _joined(lines: Sequence[Line], skip: bool) -> Line:
    """One line of all that are about an image."""
    if len(lines) == 1:
        return lines[0]
    return replace(
        lines[0],
        annotation=max(line.annotation for line in lines),
        heatmap=_first_file([line.heatmap for line in lines], skip),
        mask=_first_file([line.mask for line in lines], skip),
        score=_first([line.score for line in lines]),
        categories=_first([line.categories or None for line in lines]) or 0,
        text=_first([line.text for line in lines]),
        where=", ".join(line.where for line in lines),
    )


def _first(values: Sequence[_Value | None]) -> _Value | None:
    return next((value for value in values if value is not None), None)


def _first_file(paths: Sequence[str | None], skip: bool) -> str | None:
    there = [path for path in paths if path is not None and os.path.isfile(path)] if skip else []
    return _first(there or paths)


def _apart(lines: Sequence[Line]) -> list[str]:
    """What the lines about one image cannot all be right in."""
    said: dict[str, set[Any]] = {
        "annotation": {line.annotation for line in lines} - {Annotation.NONE},
        "heatmap": {os.path.abspath(line.heatmap) for line in lines if line.heatmap is not None},
        "mask": {os.path.abspath(line.mask) for line in lines if line.mask is not None},
        "categories": {line.categories for line in lines} - {0},
        "text": {line.text for line in lines} - {None},
        "generator": {line.generator for line in lines},
    }
    found = [what for what, values in said.items() if len(values) > 1]
    scores = [line.score for line in lines if line.score is not None]
    if max(scores, default=0) - min(scores, default=0) > _ROUNDING:
        found.append("score")
    return found
