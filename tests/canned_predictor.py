"""A predictor with canned answers: what a language model's answers look like, without one."""

from collections.abc import Iterator

import numpy as np

from artifactnet.inference.base import BasePredictor
from artifactnet.inference.inputs import Failure
from artifactnet.types import Prediction, Rationale

NOTICE = "probability is 1 - score"
RATIONALE = Rationale(
    "The image shows two people on a bench in a park.\nTrees stand behind them.",
    "1. The left hand of the woman.\n2. The lower edge of the bench.",
    "The hand has six fingers, and two of them grow out of the wrist.\nThe bench has three legs "
    "on one side and one on the other, so that it could not stand.",
    "Sure. \n### Image Description\n... [MAP] ... [SCORE].",
)


class CannedPredictor(BasePredictor):
    """Score: the first pixel's red; heatmap: the green channel; text: as given, in turn.

    Attributes:
        calls: batch size, workers and heatmaps of every call.
    """

    default_batch_size = 1
    warnings = (NOTICE,)
    threshold = 0.5

    def __init__(self, *rationales: Rationale | None) -> None:
        self.rationales = rationales or (RATIONALE,)
        self.calls: list[tuple[int, int, bool]] = []
        self._answered = 0

    def _stream(self, images, options):
        self.calls.append((options.batch_size, options.workers, options.heatmaps))
        return super()._stream(images, options)

    def _prepare(self, image, options):
        return image

    def _answer_batch(self, batch, options) -> Iterator[Prediction | Failure]:
        return (self._answer(image, options.heatmaps) for image in batch)

    def _answer(self, image, heatmaps) -> Prediction | Failure:
        score = float(image.pixels[0, 0, 0]) / 255
        text = self.rationales[self._answered % len(self.rationales)]
        self._answered += 1
        return Prediction(
            1 - score,
            1 - score >= self.threshold,
            score=score,
            path=image.path,
            heatmap=image.pixels[..., 1].astype(np.float32) / 255 if heatmaps else None,
            warnings=(NOTICE, "the text was cut off") if score < 0.25 else (NOTICE,),
            explanation=text,
        )


def canned_pixels(score: float, size: tuple[int, int] = (24, 36)) -> np.ndarray:
    """Pixels that get this score from `CannedPredictor`, with a bright spot as heatmap."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    spot = np.exp(-(((x / size[1] - 0.6) / 0.15) ** 2) - ((y / size[0] - 0.4) / 0.2) ** 2)
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[..., 0] = round(255 * score)
    pixels[..., 1] = np.round(255 * spot)
    pixels[..., 2] = np.round(200 * x / size[1])
    return pixels
