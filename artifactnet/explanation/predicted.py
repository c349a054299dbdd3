"""Explain images by what a model predicts, for models that give neither layers nor gradients."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from artifactnet.explanation.explainer import Explained, make_explanation
from artifactnet.explanation.methods import METHODS, PREDICTED
from artifactnet.inference.base import BasePredictor
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.types import ArtifactNetError, Prediction, UInt8Array


class PredictionExplainer:
    """Predictions in the form of `artifactnet.explanation.explainer.Explainer`'s answers.

    Raises:
        ArtifactNetError: ``methods`` names another one than ``predicted_heatmap`` or ``all``.
    """

    methods: tuple[str, ...] = (PREDICTED,)

    def __init__(
        self, predictor: BasePredictor, methods: Sequence[str] | None = None, batch_size: int = 8
    ) -> None:
        for method in methods or ():
            if method not in (*METHODS, "all"):
                raise ArtifactNetError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
            if method not in (PREDICTED, "all"):
                raise ArtifactNetError(
                    f"method {method} cannot explain this model: a {type(predictor).__name__} "
                    f"gives only its predictions; what can: {PREDICTED}"
                )
        self.detector = predictor
        self._batch_size = batch_size

    def explain_batch(self, images: Sequence[tuple[str, UInt8Array]]) -> list[Explained | Failure]:
        """Predict images, given as name and (H, W, 3) uint8 pixels.

        Returns:
            One answer per image, in order; a failure for one without a usable prediction.
        """
        sources = [ImageInput(name, _png(pixels)) for name, pixels in images]
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
        if heatmap is None and self.detector.has_heatmap:
            return Failure(name, "the model predicts no heatmap")
        if heatmap is not None and heatmap.shape != pixels.shape[:2]:
            raise ValueError(f"{name}: a heatmap of {heatmap.shape} for {pixels.shape[:2]}")
        numbers = (answer.probability, 0.0 if answer.score is None else answer.score)
        finite = heatmap is None or bool(np.isfinite(heatmap).all())
        if not (all(map(math.isfinite, numbers)) and finite):
            return Failure(name, "the model's answer is not a number (NaN)")
        return Explained(
            name,
            pixels,
            answer.probability,
            answer.is_fake,
            {} if heatmap is None else {PREDICTED: make_explanation(PREDICTED, heatmap, heatmap)},
            answer.score,
            answer.explanation,
            # warnings about the model itself are at the head of a report
            tuple(text for text in answer.warnings if text not in self.detector.warnings),
            answer.uncertain,
            answer,
        )


def _png(pixels: UInt8Array) -> bytes:
    """The same pixels as the content of a file, which every predictor takes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
