"""Detectors of others as code: ``module:function`` returns a torch classifier, or any function."""

from __future__ import annotations

import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from artifactnet.data.text import brief
from artifactnet.explanation.detector import Classifier, Detector
from artifactnet.files import sha256_file
from artifactnet.inference.base import BasePredictor, PredictOptions
from artifactnet.inference.inputs import Failure, OpenedImage
from artifactnet.models.state import evaluating
from artifactnet.types import ArtifactNetError, Prediction, UInt8Array

_RETURNS = (
    "a torch classifier (artifactnet.Classifier says its input size and which class is fake), or a "
    "function from a list of images, (H, W, 3) uint8, to the probability that each is fake"
)


def find_function(source: str) -> Callable[[], Any]:
    """Import the function that makes a model; it is not called yet.

    Args:
        source: ``module:function``, the module importable from the current folder.

    Raises:
        ArtifactNetError: there is none, or it needs arguments.
    """
    name, _, attribute = source.partition(":")
    if os.getcwd() not in sys.path:  # as of `python -m`; a console script has its own folder there
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ArtifactNetError(f"{source}: cannot be imported from here: {error}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ArtifactNetError(f"{source}: the module has no function {attribute}")
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError) as error:
        raise ArtifactNetError(
            f"{source}: must be a function without arguments ({error}) that returns {_RETURNS}"
        ) from None
    found: Callable[[], Any] = function
    return found


def load_foreign(source: str) -> BasePredictor:
    """Call the function of `find_function`; what it returns becomes a predictor.

    Raises:
        ArtifactNetError: it returns something else than a model.
    """
    function = find_function(source)
    file = getattr(sys.modules[source.partition(":")[0]], "__file__", None)
    version = f"{source} {sha256_file(file) if file else ''}"  # settings are written in the code
    model = function()
    if isinstance(model, BasePredictor):
        return model
    if isinstance(model, nn.Module):
        model = Classifier(model)
    if all(hasattr(model, name) for name in ("module", "preprocess", "logits", "threshold")):
        return ClassifierPredictor(model, version)
    if callable(model):
        return FunctionPredictor(model, source, version)
    raise ArtifactNetError(f"{source}: returned {brief(model)}; it must return {_RETURNS}")


@dataclass(slots=True)
class _Prepared:
    """An image, as pixels or as a tensor at model size."""

    name: str
    path: str | None
    content: Any

    def prediction(self, probability: float, threshold: float) -> Prediction | Failure:
        if not math.isfinite(probability):
            return Failure(self.name, "the model's answer is not a number (NaN)")
        return Prediction(probability, probability >= threshold, path=self.path)


class ClassifierPredictor(BasePredictor):
    """Verdicts of a torch classifier of real against fake.

    Args:
        detector: a `Classifier`.
        mode: all that decides its answers beside the weights, for `model_fingerprint`.
    """

    has_heatmap = False

    def __init__(self, detector: Detector, mode: str) -> None:
        self.model, self._detector = detector.module, detector
        self.preprocess = detector.preprocess
        self.warnings = tuple(detector.warnings)
        self.mode = mode

    @property
    def threshold(self) -> float:
        """See `BasePredictor.threshold`."""
        return self._detector.threshold

    def _prepare(self, image: OpenedImage, options: PredictOptions) -> _Prepared:
        return _Prepared(image.name, image.path, self.preprocess.image(image.pixels)[0])

    def _answer_batch(
        self, batch: list[_Prepared], options: PredictOptions
    ) -> Iterator[Prediction | Failure]:
        weight = next(self.model.parameters(), torch.empty(0))
        images = torch.stack([item.content for item in batch]).to(weight.device, weight.dtype)
        with evaluating(self.model), torch.no_grad():
            logits = self._detector.logits(images).detach().cpu().double()
        for item, value in zip(batch, torch.sigmoid(logits).tolist(), strict=True):
            yield item.prediction(value, self.threshold)


class FunctionPredictor(BasePredictor):
    """Verdicts of a function from a list of (H, W, 3) uint8 arrays to P(fake) of each.

    Args:
        function: the model.
        name: for errors.
        mode: see `ClassifierPredictor`.
    """

    has_heatmap = False
    threshold: float = 0.5

    def __init__(self, function: Callable[[list[UInt8Array]], Any], name: str, mode: str) -> None:
        self._function, self._name, self.mode = function, name, mode

    def _prepare(self, image: OpenedImage, options: PredictOptions) -> _Prepared:
        return _Prepared(image.name, image.path, image.pixels)

    def _answer_batch(
        self, batch: list[_Prepared], options: PredictOptions
    ) -> Iterator[Prediction | Failure]:
        given = self._function([item.content for item in batch])
        if isinstance(given, torch.Tensor):
            given = given.detach().cpu().numpy()
        try:
            values = np.asarray(given, np.float64)
        except (TypeError, ValueError):
            values = np.empty(0)
        # NaN is a failure of one image
        if values.shape != (len(batch),) or bool(((values < 0) | (values > 1)).any()):
            raise ArtifactNetError(
                f"{self._name}: must return a probability in [0, 1] of each of {len(batch)} "
                f"images, not {brief(given)}"
            )
        for item, value in zip(batch, values.tolist(), strict=True):
            yield item.prediction(value, self.threshold)
