"""From an answer's text to a prediction: what a local model and an endpoint have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from artifactnet.data.regions import draw_corners, whole_corners
from artifactnet.inference.base import BasePredictor, PredictOptions
from artifactnet.inference.inputs import OpenedImage
from artifactnet.taxonomy import UNCATEGORIZED
from artifactnet.types import Instance, Prediction, Rationale, Region, UInt8Array
from artifactnet.vlm.coordinates import Size
from artifactnet.vlm.fakexplainer import grammar

OPENING, CLOSING = grammar.MARKERS[4:]  # of the verdict
WORDS = tuple(grammar.VERDICTS)  # by label

CUT_OFF = "the answer was cut off: it reached the limit of its length"
NO_VERDICT = (
    "the answer has no verdict: it counts as neither, so is_fake is false and probability is 0.5"
)


@dataclass(slots=True)
class Question:
    """An image that is asked about."""

    name: str
    path: str | None
    pixels: UInt8Array
    input_size: Size  # (width, height) of the model's coordinates

    @property
    def size(self) -> Size:
        """(width, height) of the image."""
        return self.pixels.shape[1], self.pixels.shape[0]


class AnswerPredictor(BasePredictor):
    """Predictions from answers in FakeXplainer's form; subclasses get the answers.

    ``is_fake`` is the verdict that was written, and ``probability`` how sure the model was of it;
    the two may differ.

    Attributes:
        drop: what answers lack (Table 4); see `grammar.Drop`.
        form: how regions are written; see `grammar.Form`.
    """

    threshold: float = 0.5
    drop: grammar.Drop = "none"
    form: grammar.Form = "json"

    @property
    def has_heatmap(self) -> bool:  # type: ignore[override]  # it depends on the training
        """Whether its answers have boxes."""
        return self.drop not in ("bbox", "label")

    @abstractmethod
    def input_size(self, image_size: Size) -> Size:
        """(width, height) of the model's coordinates for an image of (width, height) pixels.

        Raises:
            ArtifactNetError: the model cannot take an image of this shape.
        """

    def _prepare(self, image: OpenedImage, options: PredictOptions) -> Question:
        height, width = image.pixels.shape[:2]
        size = self.input_size((width, height))
        return Question(image.name, image.path, image.pixels, size)

    def _prediction(
        self,
        question: Question,
        text: str,
        probability: float | None,
        notes: tuple[str, ...],
        options: PredictOptions,
    ) -> Prediction:
        """What an answer says; ``probability`` is None where the model's is unknown."""
        answer = grammar.read(text, question.size, question.input_size)
        notes += _notes(answer)
        if answer.is_fake is None:
            probability = 0.5
        elif probability is None:
            probability = float(answer.is_fake)
        captions = [region.caption for region in answer.regions] + list(answer.captions)
        found = Prediction(
            probability=probability,
            is_fake=bool(answer.is_fake),
            path=question.path,
            warnings=(*self.warnings, *notes),
            explanation=Rationale(
                "", "\n".join(filter(None, captions)), "\n".join(answer.tags), text
            ),
            regions=answer.regions if self.has_heatmap else None,
            tags=answer.tags if self.drop not in ("tags", "label") else None,
        )
        if options.heatmaps and self.has_heatmap:
            height, width = question.pixels.shape[:2]
            boxes = [region.bbox for region in answer.regions]
            found.mask = draw_corners(boxes, (height, width))
            found.heatmap = found.mask.astype(np.float32)
            instances = (_instance(r, probability, (height, width)) for r in answer.regions)
            found.instances = tuple(i for i in instances if i.area >= options.min_area)
        return found


def verdict_probability(generated: float, real: float) -> float:
    """Probability that an image is fake, in [0, 1]: softmax over two log-likelihoods.

    Args:
        generated: summed log-likelihood of the verdict ``generated``, natural logarithm.
        real: that of ``real``.
    """
    difference = real - generated
    # the exponential of a large number overflows
    if difference > 0:
        return math.exp(-difference) / (1 + math.exp(-difference))
    return 1 / (1 + math.exp(difference))


def before_verdict(text: str) -> str | None:
    """An answer up to and including the first ``<verdict>``; None without one."""
    head, opening, _ = text.partition(OPENING)
    return head + opening if opening else None


def _notes(answer: grammar.Answer) -> tuple[str, ...]:
    """What went wrong in an answer."""
    notes = [NO_VERDICT] if answer.is_fake is None else []
    if answer.dropped:
        notes.append(f"{answer.dropped} boxes of the answer cannot be used and were left out")
    if answer.unknown_tags:
        notes.append(f"{answer.unknown_tags} tags of the answer are unknown and were left out")
    return tuple(notes)


def _instance(region: Region, confidence: float, size: tuple[int, int]) -> Instance:
    """A region in whole pixels, as `draw_corners` draws it into an image of (height, width)."""
    left, top, right, bottom = whole_corners(region.bbox, size)
    # as OpenCV outlines it: the outermost pixels
    corners = [(left, top), (left, bottom - 1), (right - 1, bottom - 1), (right - 1, top)]
    return Instance(
        category=UNCATEGORIZED,
        box=(left, top, right, bottom),
        area=(right - left) * (bottom - top),
        confidence=confidence,
        contours=(np.array(corners, np.int32),),
        caption=region.caption or None,
    )
