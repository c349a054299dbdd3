"""The predictor of detectors: a saved model with its own preprocessing and thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from artifactnet.data.transforms import Geometry
from artifactnet.inference.backends.exported import AnyModel, ExportedModel
from artifactnet.inference.base import BasePredictor, PredictOptions
from artifactnet.inference.forward import forward
from artifactnet.inference.inputs import Failure, OpenedImage
from artifactnet.inference.instances import (
    find_artifacts,
    find_instances,
    frame_probabilities,
    restore_planes,
)
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.inference.tiles import tiled_probabilities
from artifactnet.types import (
    ArtifactNetError,
    Float32Array,
    ModelOutput,
    Prediction,
    UInt8Array,
    is_uncertain,
)


@dataclass(slots=True)
class _Ready:
    """A decoded image at model size; the original pixels are kept only for tiles."""

    name: str
    path: str | None
    image: torch.Tensor  # (3, H, W) float32, normalised
    geometry: Geometry
    pixels: UInt8Array | None  # (H0, W0, 3)


class Predictor(BasePredictor):
    """Predicts images with the preprocessing and thresholds saved in the model.

    Args:
        model: a trained model, on its device (its train/eval state is restored), or an exported
            file (`inference.backends.exported.load_exported`).
    """

    def __init__(self, model: AnyModel) -> None:
        self.model = model
        self.has_segmentation = model.has_segmentation
        self.warnings: tuple[str, ...] = tuple(model.notices)
        self._preprocess = preprocess_of(model)

    @property
    def threshold(self) -> float:
        """In [0, 1]: an image is called fake if its probability reaches it."""
        return self.model.config.threshold

    @property
    def limits(self) -> tuple[float, float] | None:
        """``(real_below, fake_from)`` of a calibrated model, between which it is uncertain."""
        return self.model.config.limits

    def _prepare(self, image: OpenedImage, options: PredictOptions) -> _Ready:
        pixels = image.pixels
        tensor, geometry = preprocess_of(self.model, pixels.shape[:2]).image(pixels)
        return _Ready(image.name, image.path, tensor, geometry, pixels if options.tiles else None)

    def _answer_batch(
        self, batch: list[_Ready], options: PredictOptions
    ) -> Iterator[Prediction | Failure]:
        outputs = forward(
            self.model,
            [item.image for item in batch],
            attention=options.heatmaps and self.model.has_attention,
            segmentation=options.heatmaps and self.has_segmentation and not options.tiles,
            heatmap=self.model.has_heatmap,  # gives the score, too; the maps may be dropped
        )
        for item, output in zip(batch, outputs, strict=True):
            yield self._answer(item, output, options)

    def _answer(
        self, item: _Ready, output: ModelOutput, options: PredictOptions
    ) -> Prediction | Failure:
        probability = float(torch.sigmoid(output.logit))
        score = None if output.score is None else float(output.score)
        if not all(map(math.isfinite, (probability, 0.0 if score is None else score))):
            return Failure(item.name, "the model's answer is not a number (NaN)")
        answer = Prediction(
            probability=probability,
            is_fake=probability >= self.threshold,
            score=score,
            path=item.path,
            warnings=self.warnings,
            uncertain=is_uncertain(probability, self.limits),
        )
        if options.heatmaps:
            try:
                self._add_maps(answer, item, output, options)
            except ArtifactNetError as error:
                return Failure(item.name, str(error))
        return answer

    def _add_maps(
        self, answer: Prediction, item: _Ready, output: ModelOutput, options: PredictOptions
    ) -> None:
        if output.attention is not None:
            answer.attention = output.attention.numpy().copy()  # no view that keeps the batch
        if output.sigma is not None:
            answer.sigma = self._preprocess.restore(output.sigma.numpy(), item.geometry)
        if self.has_segmentation:
            config = self.model.config
            answer.probabilities = self._probabilities(item, output, options)
            answer.heatmap, answer.mask = find_artifacts(
                answer.probabilities,
                config.map_threshold,
                config.segmentation.labels == "softmax",
                self.model.known_categories,
            )
            answer.instances = find_instances(
                answer.mask, answer.probabilities, answer.heatmap, options.min_area
            )
        elif output.heatmap is not None:
            answer.heatmap = self._preprocess.restore(output.heatmap.numpy(), item.geometry)

    def _probabilities(
        self, item: _Ready, output: ModelOutput, options: PredictOptions
    ) -> Float32Array:
        """(7, H0, W0) from the whole image or from tiles."""
        if item.pixels is not None:
            assert not isinstance(self.model, ExportedModel)  # an exported file has no such head
            return tiled_probabilities(
                self.model, self._preprocess, item.pixels, options.overlap, options.batch_size
            )
        assert output.segmentation is not None
        planes = frame_probabilities(output.segmentation, self._preprocess.size)
        return restore_planes(planes, item.geometry)
