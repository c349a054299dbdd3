"""Where a model says that an image looks wrong, for models of which only the answers are known."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
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
from artifactnet.explanation.methods import METHODS, PREDICTED, scale_of
from artifactnet.explanation.sliding import check_windows, sliding_map
from artifactnet.inference.inputs import Failure, ImageInput, ImageLike, to_pixels
from artifactnet.inference.instances import find_artifacts, frame_probabilities, restore_planes
from artifactnet.inference.predictor import Predictor, PredictorLike
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.attention.rollout import normalize
from artifactnet.models.state import undisturbed
from artifactnet.types import (
    ArtifactNetError,
    Explanation,
    Float32Array,
    Prediction,
    Rationale,
    UInt8Array,
)

CONSTANT = "the map is constant: this method does not say where the model looked"


@dataclass(frozen=True, slots=True)
class Options:
    """How maps are made.

    Attributes:
        batch_size: images, or windows, that pass through the model together.
        window: side of a sliding patch, pixels of the image.
        stride: from one patch to the next, pixels.
    """

    batch_size: int = 8
    window: int = 224
    stride: int = 224


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
        warnings: of this image alone, beside those of its maps.
    """

    name: str
    pixels: UInt8Array
    probability: float
    is_fake: bool
    explanations: dict[str, Explanation]
    score: float | None = None
    rationale: Rationale | None = None
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Judged:
    """What one pass through the model says of B images."""

    logits: Tensor  # (B,) float64
    scores: Tensor | None = None  # (B,) of a heatmap head
    heatmaps: Tensor | None = None  # (B, h, w) in [0, 1], likewise
    planes: Tensor | None = None  # (B, K, h, w) logits of a segmentation head, where shown

    def sound(self) -> Tensor:
        """(B,) which verdicts are numbers."""
        scores = torch.zeros(()) if self.scores is None else self.scores
        return self.logits.isfinite() & scores.isfinite()

    def some(self, chosen: Tensor | slice) -> _Judged:
        """The same of some of the images."""
        scores, heatmaps, planes = (
            None if part is None else part[chosen]
            for part in (self.scores, self.heatmaps, self.planes)
        )
        return _Judged(self.logits[chosen], scores, heatmaps, planes)


@dataclass(slots=True)
class _Item:
    """An image at model size; ``maps`` (raw, heatmap) fill up method by method, until a problem."""

    name: str
    pixels: UInt8Array
    frame: Tensor
    geometry: Geometry
    maps: dict[str, tuple[Float32Array, Float32Array]]
    problem: str = ""


class Explainer:
    """Makes maps of one detector by one or more methods.

    Attributes:
        detector: what is explained.
        methods: names, in the order asked for.
    """

    def __init__(
        self,
        model: Detector | ArtifactNet | Predictor,
        methods: Sequence[str] | None = None,
        options: Options = Options(),
    ) -> None:
        """Check that every method can serve the model.

        Args:
            model: one of ours, or a `Classifier` around any torch or timm classifier.
            methods: names of `artifactnet.explanation.methods.METHODS`; ``["all"]``: all that can
                serve the model; None: the paper's choice for this kind of network.
            options: how maps are made.

        Raises:
            ArtifactNetError: an unknown method, one that cannot serve this network, an option
                below 1, or a stride that leaves out pixels.
        """
        if options.batch_size < 1:
            raise ArtifactNetError(f"batch_size must be 1 or more, not {options.batch_size}")
        check_windows(options.window, options.stride, options.batch_size)
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
        self._options = options
        self._layer = target_layer(self.detector) if set(self.methods) & set(CAM_METHODS) else None

    def batch(self, images: Sequence[tuple[str, UInt8Array]]) -> list[Explained | Failure]:
        """Explain a few images; no more than ``batch_size`` pass through the model together.

        Args:
            images: name and (H, W, 3) uint8 pixels of each.

        Returns:
            One answer per image, in order; a failure for one that cannot be explained.
        """
        answers: list[Explained | Failure] = []
        for start in range(0, len(images), self._options.batch_size):
            answers += self._few(images[start : start + self._options.batch_size])
        return answers

    def _few(self, images: Sequence[tuple[str, UInt8Array]]) -> list[Explained | Failure]:
        answers: dict[int, Explained | Failure] = {}
        items: dict[int, _Item] = {}
        for number, (name, pixels) in enumerate(images):
            try:
                frame, geometry = preprocess_for(self.detector, pixels).image(pixels)
            except ArtifactNetError as error:
                answers[number] = Failure(name, str(error).removeprefix(f"{name}: "))
            else:
                items[number] = _Item(name, pixels, frame, geometry, {})
        sizes: dict[torch.Size, list[int]] = {}  # those of one size pass through together
        for number, item in items.items():
            sizes.setdefault(item.frame.shape, []).append(number)
        for numbers in sizes.values():
            found = self._explain([items[number] for number in numbers])
            answers.update(zip(numbers, found, strict=True))
        return [answers[number] for number in range(len(images))]

    def _explain(self, items: list[_Item]) -> list[Explained | Failure]:
        weight = reference_weight(self.detector)
        frames = torch.stack([item.frame for item in items]).to(weight)
        judged = self._judge(frames)
        chosen = judged.sound()
        sound = chosen.tolist()
        kept = [item for item, fine in zip(items, sound, strict=True) if fine]
        if kept:
            inputs = frames if all(sound) else frames[chosen.to(weight.device)]
            for method in self.methods:
                self._add(method, kept, inputs, judged.some(chosen))
        return [
            self._answer(item, judged.some(slice(number, number + 1)))
            if fine
            else Failure(item.name, "the model's answer is not a number (NaN)")
            for number, (item, fine) in enumerate(zip(items, sound, strict=True))
        ]

    def _judge(self, frames: Tensor) -> _Judged:
        """Verdicts, and what heads say that the methods, or a reader, want to know."""
        segments = known.SEGMENTATION in self.methods
        own = self.detector.model if isinstance(self.detector, OwnDetector) else None
        with undisturbed(self.detector.module), torch.no_grad():
            if own is None or not (segments or own.has_heatmap):
                return _Judged(self.detector.logits(frames).double().cpu())
            output = own(frames, segmentation=segments, heatmap=own.has_heatmap)
        scores, heatmaps, planes = (
            None if part is None else part.float().cpu()
            for part in (output.score, output.heatmap, output.segmentation)
        )
        return _Judged(output.logit.double().cpu(), scores, heatmaps, planes)

    def _add(self, method: str, items: list[_Item], frames: Tensor, judged: _Judged) -> None:
        """One method's maps of all items; an image that has none spoils no other's."""
        try:
            if method == known.SLIDING:
                self._add_sliding(items)
            elif method == known.SEGMENTATION:
                self._add_segmentation(items, judged.planes)
            else:
                raw, scaled = self._grids(method, frames, judged)
                for item, own, shown in zip(items, raw, scaled, strict=True):
                    heatmap = self.detector.preprocess.restore(shown, item.geometry)
                    item.maps[method] = own, heatmap
        except ArtifactNetError as error:
            if len(items) == 1:
                items[0].problem = f"{method}: {error}".replace(
                    f"{method}: {method}:", f"{method}:"
                )
                return
            for number, item in enumerate(items):
                few = slice(number, number + 1)
                self._add(method, [item], frames[few], judged.some(few))

    def _add_sliding(self, items: list[_Item]) -> None:
        options = self._options
        for item in items:
            found = sliding_map(
                self.detector, item.pixels, options.window, options.stride, options.batch_size
            )
            item.maps[known.SLIDING] = found, found

    def _grids(
        self, method: str, frames: Tensor, judged: _Judged
    ) -> tuple[Float32Array, Float32Array]:
        """Raw maps and maps in [0, 1], both (B, h, w) of the frame."""
        if method == known.PREDICTED:
            assert judged.heatmaps is not None
            return judged.heatmaps.numpy(), judged.heatmaps.numpy()
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

    def _add_segmentation(self, items: list[_Item], logits: Tensor | None) -> None:
        assert isinstance(self.detector, OwnDetector)
        assert logits is not None
        model = self.detector.model
        exclusive = model.config.segmentation.labels == "softmax"
        for item, grid in zip(items, logits, strict=True):
            planes = frame_probabilities(grid, self.detector.preprocess.size)
            planes = restore_planes(planes, item.geometry)
            some, _ = find_artifacts(
                planes, model.config.map_threshold, exclusive, model.known_categories
            )
            item.maps[known.SEGMENTATION] = some, some

    def _answer(self, item: _Item, judged: _Judged) -> Explained | Failure:
        """The answer about one image, with the verdict of a batch of one."""
        if item.problem:
            return Failure(item.name, item.problem)
        explanations = {}
        for method, (raw, heatmap) in item.maps.items():
            if not (np.isfinite(raw).all() and np.isfinite(heatmap).all()):
                return Failure(item.name, f"the map of {method} is not a number (NaN)")
            warnings = (CONSTANT,) if raw.size > 1 and raw.min() == raw.max() else ()
            explanations[method] = Explanation(
                method, raw, heatmap, known.scale_of(method), warnings
            )
        probability = float(judged.logits.sigmoid())
        is_fake = probability >= self.detector.threshold
        score = None if judged.scores is None else float(judged.scores)
        return Explained(item.name, item.pixels, probability, is_fake, explanations, score)


def explain(
    model: Detector | ArtifactNet | Predictor,
    images: ImageLike | list[Any] | tuple[Any, ...],
    method: str | None = None,
    options: Options = Options(),
) -> Explanation | list[Explanation]:
    """Show where a detector looks when it says that an image is fake.

    Args:
        model: what `artifactnet.load_model` returned, an `ArtifactNet`, or a
            `artifactnet.Classifier` around any torch or timm classifier.
        images: a path, file content, PIL image, array or tensor, or a list or tuple of such.
        method: one of `artifactnet.explanation.methods.METHODS`; None takes the paper's choice,
            ``relevance`` for ViTs and ``grad_cam_smooth`` for others (X-AIGD Sec. 4); of models
            that see tiles, their own heatmap.
        options: how maps are made.

    Returns:
        One explanation for one image; for a list, a list in its order.

    Raises:
        ArtifactNetError: the method cannot serve this network, or an image cannot be used or
            explained (the message names it).
    """
    several = isinstance(images, list | tuple)
    explainer = Explainer(model, None if method is None else [method], options)
    each = list(images) if isinstance(images, list | tuple) else [images]
    found: list[Explanation] = []
    for start in range(0, len(each), options.batch_size):
        few = []
        for number, image in enumerate(each[start : start + options.batch_size], start):
            name = str(image) if isinstance(image, str | Path) else f"image {number}"
            few.append((name, to_pixels(image, name)))
        for answer in explainer.batch(few):
            if isinstance(answer, Failure):
                raise ArtifactNetError(f"{answer.path}: {answer.reason}")
            found.append(answer.explanations[explainer.methods[0]])
    return found if several else found[0]


class Predicted:
    """Answers of a predictor in the form of an `artifactnet.explanation.explainer.Explainer`.

    It asks for neither layers nor gradients: the one map is the heatmap that was predicted.

    Attributes:
        detector: the predictor.
        methods: ``("predicted_heatmap",)``.
    """

    methods = (PREDICTED,)

    def __init__(
        self, predictor: PredictorLike, methods: Sequence[str] | None = None, batch_size: int = 8
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
