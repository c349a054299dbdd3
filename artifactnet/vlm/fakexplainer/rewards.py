"""Rewards of an answer in the second stage of training (FakeXplainer, Sec. 4.2).

R = w_G(t) R_G + R_C + R_F: the verdict is right, the form is strict, and the boxes overlap the
annotated ones. The form never looks at the truth, and boxes count by the area of their union, so
that no area is gained twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from artifactnet.config import GrpoConfig
from artifactnet.metrics.box_sets import box_set_areas, matched_iou
from artifactnet.types import Region
from artifactnet.vlm.coordinates import Size
from artifactnet.vlm.fakexplainer.grammar import MAX_REGIONS, Drop, Form, read, read_strict
from artifactnet.vlm.reward_rule import Earned
from artifactnet.vlm.rows import Row

Iou = Literal["union", "matched"]


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known about an image.

    Attributes:
        is_fake: whether it was generated.
        regions: in pixels of the image; none of a real one.
        tags: of `artifactnet.taxonomy.TAGS`.
        image_size: (width, height).
        input_size: (width, height) of the model's coordinates for it.
    """

    is_fake: bool
    regions: Sequence[Region]
    tags: Sequence[str]
    image_size: Size
    input_size: Size


@dataclass(frozen=True, slots=True)
class Reward:
    """The reward of one answer and its parts.

    Attributes:
        label: R_C, 1 if the verdict is right, else 0.
        grounding: R_G in [0, 1]; 0 where answers are taught without boxes.
        format: R_F, 1 for the strict form, else 0.
        total: what the answer earns; without ``grounding`` where answers are taught without boxes.
        regions: how many regions the answer has.
        area_share: share of the image that its boxes cover, in [0, 1]; of more than 32 regions,
            that of the first 32.
        iou: of its boxes and the annotated ones, in [0, 1]; 0 for more than 32 regions, and where
            answers are taught without boxes.
    """

    label: float
    grounding: float
    format: float
    total: float
    regions: int
    area_share: float
    iou: float


def grounding_weight(mode: Literal["linear"] | float, step: int, steps: int) -> float:
    """Weight w_G of the grounding reward at an optimizer step.

    Args:
        mode: ``linear`` rises from 0.5 to 1 over the training; a number is the weight itself.
        step: steps taken so far, from 0.
        steps: of the training, at least 1.
    """
    return 0.5 + 0.5 * step / steps if mode == "linear" else float(mode)


def score_answer(
    text: str,
    truth: Truth,
    weight: float,
    eta: float = 1.1,
    iou: Iou = "union",
    drop: Drop = "none",
    form: Form = "json",
) -> Reward:
    """Reward of one answer.

    R_G = min(1, eta IoU), where the boxes are read leniently. No boxes on both sides have an IoU of
    1, boxes on one side alone 0, and so have more than 32.

    Args:
        text: the answer, special tokens included where the form has them.
        truth: about its image.
        weight: w_G, see `grounding_weight`.
        eta: scales the IoU.
        iou: of the unions of all boxes, or box by box; see `artifactnet.metrics.box_sets`.
        drop: what answers are taught without.
        form: how a region is written.
    """
    answer = read_strict(text, truth.image_size, truth.input_size, drop, form)
    strict = float(answer is not None)
    if answer is None:
        answer = read(text, truth.image_size, truth.input_size)
    label = float(answer.is_fake is truth.is_fake)
    boxes = [region.bbox for region in answer.regions[:MAX_REGIONS]]
    wanted = [region.bbox for region in truth.regions]
    areas = box_set_areas(boxes, wanted, truth.image_size)
    width, height = truth.image_size
    share = areas.predicted / (width * height)
    count = len(answer.regions)
    if drop in ("bbox", "label"):
        return Reward(label, 0.0, strict, label + strict, count, share, 0.0)
    if count > MAX_REGIONS:
        overlap = 0.0
    elif iou == "matched":
        overlap = matched_iou(boxes, wanted, truth.image_size)
    else:
        overlap = areas.intersection / areas.union if areas.union > 0 else 1.0
    grounding = min(1.0, eta * overlap)
    total = weight * grounding + label + strict
    return Reward(label, grounding, strict, total, count, share, overlap)


class ProgressiveRule:
    """`score_answer` as GRPO's `artifactnet.vlm.reward_rule.RewardRule`; w_G goes with the steps.

    Args:
        settings: ``eta``, ``grounding`` and ``iou``.
        drop: what answers are taught without.
        form: how a region is written.
    """

    parts: tuple[str, ...] = ("label", "grounding", "format")

    def __init__(self, settings: GrpoConfig, drop: Drop, form: Form) -> None:
        mode = settings.grounding
        self._mode: Literal["linear"] | float = "linear" if mode == "linear" else float(mode)
        self._eta, self._iou = settings.eta, cast(Iou, settings.iou)
        self._drop, self._form = drop, form

    def __call__(self, text: str, row: Row, step: int, steps: int) -> Earned:
        """See `artifactnet.vlm.reward_rule.RewardRule`."""
        truth = Truth(row.is_fake, row.regions or (), row.tags or (), row.size, row.input_size)
        weight = grounding_weight(self._mode, step, steps)
        found = score_answer(text, truth, weight, self._eta, self._iou, self._drop, self._form)
        return Earned(
            found.total,
            {name: getattr(found, name) for name in self.parts},
            {
                "regions": found.regions,
                "area_share": found.area_share,
                "grounding_weight": weight,
            },
        )
