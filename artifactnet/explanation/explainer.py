"""Explain images: one detector, one or more methods, maps at each image's own size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from artifactnet.data.transforms import Geometry
from artifactnet.explanation import methods as known
from artifactnet.explanation.attention import ATTENTION_METHODS, attention_maps
from artifactnet.explanation.cam import CAM_METHODS, activation_maps
from artifactnet.explanation.detector import (
    Detector,
    OwnDetector,
    as_detector,
    preprocess_for,
    reference_weight,
)
from artifactnet.explanation.layers import target_layer
from artifactnet.explanation.sliding import check_windows, sliding_map
from artifactnet.inference.base import BasePredictor
from artifactnet.inference.inputs import Failure, ImageLike, to_pixels
from artifactnet.inference.instances import frame_probabilities, restore_planes
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.attention.rollout import normalize
from artifactnet.models.heads.segmentation import any_artifact_of_planes
from artifactnet.models.state import undisturbed
from artifactnet.types import (
    ArtifactNetError,
    Explanation,
    Float32Array,
    ModelOutput,
    Prediction,
    Rationale,
    UInt8Array,
    Verdict,
    is_uncertain,
    verdict_of,
)

_Maps = tuple[Float32Array, Float32Array]  # raw, and as shown
CONSTANT = "the map is constant: this method does not say where the model looked"


@dataclass(slots=True)
class Explained:
    """One image with its verdict and its maps.

    Attributes:
        name: as given.
        pixels: (H, W, 3) uint8, as given.
        probability: of being fake, in [0, 1].
        is_fake: ``probability >= threshold`` of the detector.
        explanations: by method.
        score: plausibility in [0, 1] (1: nothing looks wrong); None of models without one.
        rationale: what a language model wrote; None of all other models.
        warnings: about this image, beside those of its maps.
        uncertain: whether the probability lies between the detector's two limits.
        prediction: of a model that explains by its predictions alone; None of all others.
    """

    name: str
    pixels: UInt8Array
    probability: float
    is_fake: bool
    explanations: dict[str, Explanation]
    score: float | None = None
    rationale: Rationale | None = None
    warnings: tuple[str, ...] = ()
    uncertain: bool = False
    prediction: Prediction | None = None

    @property
    def verdict(self) -> Verdict:
        """As of `artifactnet.types.Prediction`."""
        return verdict_of(self.is_fake, self.uncertain)


def make_explanation(method: str, raw: Float32Array, heatmap: Float32Array) -> Explanation:
    """An `Explanation`, with a warning where the map is constant."""
    constant = raw.size > 1 and raw.min() == raw.max()
    return Explanation(
        method, raw, heatmap, known.scale_of(method), (CONSTANT,) if constant else ()
    )


@dataclass(frozen=True, slots=True)
class _Item:
    """A preprocessed image."""

    name: str
    pixels: UInt8Array
    frame: Tensor
    geometry: Geometry


class Explainer:
    """Makes maps of one detector by one or more methods.

    Args:
        model: one of ours, or a `Classifier` around any torch or timm classifier.
        methods: names of `artifactnet.explanation.methods.METHODS`; ``["all"]``: all that support
            the model; None: the paper's choice for this kind of network.
        batch_size: images, or windows, per forward pass.
        window, stride: side and step of sliding patches, pixels of the image.

    Raises:
        ArtifactNetError: a method that is unknown or does not support this network, an option
            below 1, or a stride that leaves out pixels.
    """

    def __init__(
        self,
        model: Detector | ArtifactNet | BasePredictor,
        methods: Sequence[str] | None = None,
        *,
        batch_size: int = 8,
        window: int = 224,
        stride: int = 224,
    ) -> None:
        if batch_size < 1:
            raise ArtifactNetError(f"batch_size must be 1 or more, not {batch_size}")
        check_windows(window, stride, batch_size)
        self.detector = as_detector(model)
        if methods is not None and list(methods) == ["all"]:
            methods = known.available(self.detector)
        self.methods = tuple(dict.fromkeys(methods or [known.default_method(self.detector)]))
        for method, reason in known.why_not(self.detector, self.methods).items():
            if reason is not None:
                possible = ", ".join(known.available(self.detector))
                raise ArtifactNetError(
                    f"method {method} cannot explain this model: {reason}; what can: {possible}"
                )
        self._batch_size, self._window, self._stride = batch_size, window, stride
        self._layer = target_layer(self.detector) if set(self.methods) & set(CAM_METHODS) else None

    def explain_batch(self, images: Sequence[tuple[str, UInt8Array]]) -> list[Explained | Failure]:
        """Explain images, given as name and (H, W, 3) uint8 pixels.

        Returns:
            One answer per image, in order; a failure for one that cannot be explained.
        """
        answers: dict[int, Explained | Failure] = {}
        for start in range(0, len(images), self._batch_size):
            sizes: dict[torch.Size, dict[int, _Item]] = {}  # one forward pass per size
            for number, (name, pixels) in enumerate(
                images[start : start + self._batch_size], start
            ):
                try:
                    frame, geometry = preprocess_for(self.detector, pixels).image(pixels)
                except ArtifactNetError as error:
                    answers[number] = Failure(name, str(error).removeprefix(f"{name}: "))
                else:
                    item = _Item(name, pixels, frame, geometry)
                    sizes.setdefault(frame.shape, {})[number] = item
            for items in sizes.values():
                answers.update(zip(items, self._explain(list(items.values())), strict=True))
        return [answers[number] for number in range(len(images))]

    def _explain(self, items: list[_Item]) -> list[Explained | Failure]:
        """Explain images whose frames have one size; after a problem, each on its own."""
        frames = torch.stack([item.frame for item in items]).to(reference_weight(self.detector))
        outputs, problem = self._forward(frames), ""
        scores = torch.zeros(()) if outputs.score is None else outputs.score
        if not bool((outputs.logit.isfinite() & scores.isfinite()).all()):
            problem = "the model's answer is not a number (NaN)"
        maps: dict[str, list[_Maps]] = {}
        for method in () if problem else self.methods:
            try:
                maps[method] = self._maps(method, items, frames, outputs)
            except ArtifactNetError as error:
                problem = f"{method}: {str(error).removeprefix(f'{method}: ')}"
                break
            if not all(np.isfinite(grid).all() for found in maps[method] for grid in found):
                problem = f"the map of {method} is not a number (NaN)"
                break
        if problem and len(items) > 1:
            return [self._explain([item])[0] for item in items]
        if problem:
            return [Failure(items[0].name, problem)]
        probabilities = [float(logit.sigmoid()) for logit in outputs.logit]
        return [
            Explained(
                item.name,
                item.pixels,
                probabilities[k],
                probabilities[k] >= self.detector.threshold,
                {method: make_explanation(method, *found[k]) for method, found in maps.items()},
                None if outputs.score is None else float(outputs.score[k]),
                uncertain=is_uncertain(probabilities[k], self.detector.limits),
            )
            for k, item in enumerate(items)
        ]

    def _forward(self, frames: Tensor) -> ModelOutput:
        """Logits, and the outputs of the heads that are shown; on the CPU."""
        segments = known.SEGMENTATION in self.methods
        own = self.detector.model if isinstance(self.detector, OwnDetector) else None
        with undisturbed(self.detector.module), torch.no_grad():
            if own is None or not (segments or own.has_heatmap):
                return ModelOutput(self.detector.logits(frames).double().cpu())
            output = own(frames, segmentation=segments, heatmap=own.has_heatmap)
        score, heatmap, segmentation = (
            None if part is None else part.float().cpu()
            for part in (output.score, output.heatmap, output.segmentation)
        )
        logit = output.logit.double().cpu()
        return ModelOutput(logit, score=score, heatmap=heatmap, segmentation=segmentation)

    def _maps(
        self, method: str, items: list[_Item], frames: Tensor, outputs: ModelOutput
    ) -> list[_Maps]:
        """One method's maps of all items: raw, and at the image's size in [0, 1]."""
        found: list[Float32Array] = []
        if method == known.SLIDING:
            windows = self._window, self._stride, self._batch_size
            found = [sliding_map(self.detector, item.pixels, *windows) for item in items]
            return list(zip(found, found, strict=True))
        if method == known.SEGMENTATION:
            assert isinstance(self.detector, OwnDetector)
            assert outputs.segmentation is not None
            exclusive = self.detector.model.config.segmentation.labels == "softmax"
            for item, grid in zip(items, outputs.segmentation, strict=True):
                planes = frame_probabilities(grid, self.detector.preprocess.size)
                planes = restore_planes(planes, item.geometry)
                found.append(any_artifact_of_planes(planes, exclusive))
            return list(zip(found, found, strict=True))
        return [
            (raw, self.detector.preprocess.restore(scaled, item.geometry))
            for item, raw, scaled in zip(items, *self._grids(method, frames, outputs), strict=True)
        ]

    def _grids(self, method: str, frames: Tensor, outputs: ModelOutput) -> _Maps:
        """Raw maps and maps in [0, 1], both (B, h, w) of the frame."""
        if method == known.PREDICTED:
            assert outputs.heatmap is not None
            return outputs.heatmap.numpy(), outputs.heatmap.numpy()
        if method in CAM_METHODS:
            found = activation_maps(self.detector, frames, method, self._layer)
            return found, found
        if method in ATTENTION_METHODS:
            raw = attention_maps(self.detector, frames, method)
            return raw.float().numpy(), normalize(raw, "minmax").float().numpy()
        assert isinstance(self.detector, OwnDetector)
        with undisturbed(self.detector.module), torch.no_grad():
            output = self.detector.model(frames, attention=True)
        return tuple(x.detach().float().cpu().numpy() for x in (output.attention, output.heatmap))


def explain(
    model: Detector | ArtifactNet | BasePredictor,
    images: ImageLike | list[Any] | tuple[Any, ...],
    method: str | None = None,
    *,
    batch_size: int = 8,
    window: int = 224,
    stride: int = 224,
) -> Explanation | list[Explanation]:
    """Show where a detector looks when it calls an image fake.

    Args:
        model: what `artifactnet.load_model` returned, an `ArtifactNet`, or a
            `artifactnet.Classifier` around any torch or timm classifier.
        images: a path, file content, PIL image, array or tensor, or a list or tuple of such.
        method: one of `artifactnet.explanation.methods.METHODS`; None: the paper's choice
            (X-AIGD Sec. 4), ``relevance`` for ViTs and ``grad_cam_smooth`` for others; of models
            that see tiles, ``predicted_heatmap``.
        batch_size, window, stride: see `Explainer`.

    Returns:
        One explanation for one image; for a list, a list in its order.

    Raises:
        ArtifactNetError: the method does not support this network, or an image cannot be used or
            explained (the message names it).
    """
    several = isinstance(images, list | tuple)
    methods = None if method is None else [method]
    explainer = Explainer(model, methods, batch_size=batch_size, window=window, stride=stride)
    each = list(images) if isinstance(images, list | tuple) else [images]
    explanations: list[Explanation] = []
    for start in range(0, len(each), batch_size):
        batch = []
        for number, image in enumerate(each[start : start + batch_size], start):
            name = str(image) if isinstance(image, str | Path) else f"image {number}"
            batch.append((name, to_pixels(image, name)))
        for answer in explainer.explain_batch(batch):
            if isinstance(answer, Failure):
                raise ArtifactNetError(f"{answer.path}: {answer.reason}")
            explanations.append(answer.explanations[explainer.methods[0]])
    return explanations if several else explanations[0]
