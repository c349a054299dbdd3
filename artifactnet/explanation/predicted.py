"""Where a model says that an image looks wrong, for models of which only the answers are known."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from artifactnet.explanation.explainer import CONSTANT, Explained
from artifactnet.explanation.methods import METHODS, PREDICTED, scale_of
from artifactnet.inference.answers import Answers
from artifactnet.inference.inputs import Failure, Source
from artifactnet.types import ArtifactNetError, Explanation, Prediction, UInt8Array


class Predicted:
    """Answers of a predictor in the form of an `artifactnet.explanation.explainer.Explainer`.

    It asks for neither layers nor gradients: the one map is the heatmap that was predicted.

    Attributes:
        detector: the predictor.
        methods: ``("predicted_heatmap",)``.
    """

    methods = (PREDICTED,)

    def __init__(
        self, predictor: Answers, methods: Sequence[str] | None = None, batch_size: int = 8
    ) -> None:
        """Check that the methods can be had.

        Args:
            predictor: the model.
            methods: None, ``["all"]`` or ``["predicted_heatmap"]``.
            batch_size: images that pass through the model together.

        Raises:
            ArtifactNetError: another method.
        """
        for method in methods or ():
            if method not in (*METHODS, "all"):
                raise ArtifactNetError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
            if method not in (PREDICTED, "all"):
                raise ArtifactNetError(
                    f"method {method} cannot explain this model: of a {type(predictor).__name__} "
                    f"only the answers are known; what can: {PREDICTED}"
                )
        self.detector = predictor
        self._batch_size = batch_size

    def batch(self, images: Sequence[tuple[str, UInt8Array]]) -> list[Explained | Failure]:
        """Judge a few images.

        Args:
            images: name and (H, W, 3) uint8 pixels of each.

        Returns:
            One answer per image, in order; a failure for one that cannot be judged.
        """
        sources = [Source(name, _png(pixels)) for name, pixels in images]
        answers = self.detector.predict_stream(sources, self._batch_size)
        return [
            self._explained(name, pixels, answer)
            for (name, pixels), answer in zip(images, answers, strict=True)
        ]

    def _explained(
        self, name: str, pixels: UInt8Array, answer: Prediction | Failure
    ) -> Explained | Failure:
        if isinstance(answer, Failure):
            return Failure(name, answer.reason)
        heatmap = answer.heatmap
        if heatmap is None:
            return Failure(name, "the model predicts no heatmap")
        if heatmap.shape != pixels.shape[:2]:
            raise ValueError(f"{name}: a heatmap of {heatmap.shape} for {pixels.shape[:2]}")
        numbers = (answer.probability, 0.0 if answer.score is None else answer.score)
        if not (all(map(math.isfinite, numbers)) and np.isfinite(heatmap).all()):
            return Failure(name, "the model's answer is not a number (NaN)")
        constant = heatmap.size > 1 and heatmap.min() == heatmap.max()
        shown = Explanation(
            PREDICTED, heatmap, heatmap, scale_of(PREDICTED), (CONSTANT,) if constant else ()
        )
        return Explained(
            name,
            pixels,
            answer.probability,
            answer.is_fake,
            {PREDICTED: shown},
            answer.score,
            answer.explanation,
            # those of the model itself stand at the head of a report
            tuple(text for text in answer.warnings if text not in self.detector.warnings),
        )


def _png(pixels: UInt8Array) -> bytes:
    """The same pixels as the content of a file, which every predictor takes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
