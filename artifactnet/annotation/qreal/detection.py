"""Stage 2: a box for each name, by an open-vocabulary detector; which boxes are kept."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from artifactnet.annotation.qreal.images import Picture
from artifactnet.data.regions import Corners
from artifactnet.llm.client import Answer
from artifactnet.metrics.entity_boxes import pairwise_iou
from artifactnet.types import ArtifactNetError, UInt8Array

STAGE = "detect"
NMS_IOU = 0.5  # two boxes of one name that overlap more show the same thing
SAME_IOU = 0.9  # two names whose boxes overlap more are one thing
MIN_SHARE = 0.01  # of the image's area
MIN_SIDE = 32  # pixels


class Detector(Protocol):
    """Finds things in images by name.

    Attributes:
        identity: what its boxes depend on beside image and name: checkpoint, threshold.
    """

    identity: str

    def detect(self, image: UInt8Array, name: str) -> tuple[Sequence[Corners], Sequence[float]]:
        """Boxes (x1, y1, x2, y2) in pixels of an (H, W, 3) image, and their scores in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Box:
    """Where an entity is: its name, (x1, y1, x2, y2) in pixels, half-open, score in [0, 1]."""

    label: str
    bbox: Corners
    score: float


def detection_key(picture: Picture, name: str, detector: str) -> dict[str, str]:
    """Key of a detector's boxes in the log."""
    return {"stage": STAGE, "image": picture.digest, "name": name, "model": detector}


def detect(detector: Detector, pixels: UInt8Array, name: str) -> Answer:
    """Ask a detector for a name, in the form of the log.

    Raises:
        ArtifactNetError: its boxes are not finite, or not as many as its scores; or it cannot run.
    """
    boxes, scores = detector.detect(pixels, name)
    rows = [[float(value) for value in box] for box in boxes]
    found = [float(score) for score in scores]
    if len(rows) != len(found) or any(len(row) != 4 for row in rows):
        raise ArtifactNetError(
            f"the detector gave {len(rows)} boxes and {len(found)} scores for {name!r}"
        )
    if not all(map(math.isfinite, [*(v for row in rows for v in row), *found])):
        raise ArtifactNetError(f"the detector's boxes for {name!r} are not finite")
    return Answer(json.dumps({"boxes": rows, "scores": found}), "stop")


def read_boxes(name: str, answer: Answer) -> list[Box]:
    """A detector's boxes for a name, as they were logged, best first."""
    row = json.loads(answer.text)
    boxes = [
        Box(name, (x1, y1, x2, y2), score)
        for (x1, y1, x2, y2), score in zip(row["boxes"], row["scores"], strict=True)
    ]
    return sorted(boxes, key=lambda box: -box.score)


def choose_boxes(
    found: Sequence[Sequence[Box]], size: tuple[int, int], max_boxes: int = 1
) -> list[Box]:
    """The boxes that become entities.

    Of each name the best boxes that do not overlap by more than `NMS_IOU` are kept, at most
    ``max_boxes``; they are clipped, and small ones dropped, since people could not judge them.
    Of two names with nearly the same box the higher score stays.

    Args:
        found: boxes by name, each best first, in pixels.
        size: (height, width) of the image.
        max_boxes: of one name.

    Returns:
        Boxes inside the image, in the order of ``found``; coordinates have two decimals.
    """
    height, width = size
    kept: list[Box] = []
    for boxes in found:
        best: list[Box] = []
        for box in boxes:
            if len(best) < max_boxes and not _overlaps(box, best, NMS_IOU):
                best.append(box)
        for box in best:
            x1, y1, x2, y2 = box.bbox
            inside = (
                round(max(x1, 0.0), 2),
                round(max(y1, 0.0), 2),
                round(min(x2, float(width)), 2),
                round(min(y2, float(height)), 2),
            )
            wide, high = inside[2] - inside[0], inside[3] - inside[1]
            if min(wide, high) >= MIN_SIDE and wide * high >= MIN_SHARE * width * height:
                kept.append(Box(box.label, inside, box.score))
    chosen: list[Box] = []
    for box in sorted(kept, key=lambda box: -box.score):
        if not _overlaps(box, [b for b in chosen if b.label != box.label], SAME_IOU):
            chosen.append(box)
    return [box for box in kept if box in chosen]


def _overlaps(box: Box, others: Sequence[Box], limit: float) -> bool:
    """Whether the IoU of a box with any of some others is above a limit."""
    return bool((pairwise_iou([box.bbox], [other.bbox for other in others]) > limit).any())
