"""Quality control of annotators by images with a known answer (FakeXplainer, Sec. 3.3).

All work of an annotator is left out if their boxes overlap those of the reference too little, or
their tags agree with its tags too rarely.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

LEAST_IOU = 0.20
LEAST_TAGS = 1 / 3
_ROUNDING = 1e-12  # a mean that equals a limit but for rounding reaches it


class Control(NamedTuple):
    """One annotator's work on one control image, compared with its reference."""

    annotator: str
    iou: float  # `artifactnet.metrics.box_sets.union_iou`
    tags: float  # `tag_agreement`


class AnnotatorQuality(NamedTuple):
    """Figures of one annotator over their control images."""

    annotator: str
    controls: int
    iou: float  # mean, in [0, 1]
    tags: float  # mean, in [0, 1]
    kept: bool


def tag_agreement(tags: Iterable[str], reference: Iterable[str]) -> float:
    """Jaccard index of two sets of tags, in [0, 1]; 1 for two empty sets (our reading)."""
    one, other = set(tags), set(reference)
    return len(one & other) / len(one | other) if one | other else 1.0


def annotator_qualities(
    controls: Iterable[Control], least_iou: float = LEAST_IOU, least_tags: float = LEAST_TAGS
) -> list[AnnotatorQuality]:
    """Judge each annotator, sorted by name; both means must reach their limit.

    Args:
        controls: of all annotators, in any order.
        least_iou: least mean IoU of an annotator who is kept, in [0, 1].
        least_tags: least mean tag agreement, likewise.

    Raises:
        ValueError: a value is not in [0, 1].
    """
    groups: dict[str, list[Control]] = defaultdict(list)
    for control in controls:
        groups[control.annotator].append(control)
    values = [value for group in groups.values() for one in group for value in one[1:]]
    if not all(0 <= value <= 1 for value in (*values, least_iou, least_tags)):  # NaN is refused too
        raise ValueError("IoU, tag agreement and their limits must be in [0, 1]")
    result = []
    for name, group in sorted(groups.items()):
        iou = statistics.fmean(control.iou for control in group)
        tags = statistics.fmean(control.tags for control in group)
        kept = iou >= least_iou - _ROUNDING and tags >= least_tags - _ROUNDING
        result.append(AnnotatorQuality(name, len(group), iou, tags, kept))
    return result
