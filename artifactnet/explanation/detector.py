"""What explanations need of a detector, and how any torch or timm classifier becomes one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from artifactnet.data.transforms import Preprocess
from artifactnet.inference.backends.exported import ExportedModel
from artifactnet.inference.base import BasePredictor
from artifactnet.inference.predictor import Predictor
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.state import exclusive
from artifactnet.types import ArtifactNetError, UInt8Array

Reshape = Callable[[Tensor], Tensor]  # a layer's output -> (B, C, h, w)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Detector(Protocol):
    """A real/fake classifier in the form that explanations work on.

    Attributes:
        module: everything that runs; its state is restored.
        net: the part of ``module`` whose layers and attention are explained.
        preprocess: how an image comes to the model and a map back.
        threshold: an image is called fake if its probability is not below.
        limits: ``(real_below, fake_from)``, between which its verdict is uncertain; None: it never
            is.
        target_layer: dotted name, inside ``net``, of the layer for activation maps; None finds
            one, see `artifactnet.explanation.layers`.
        reshape: brings that layer's output to (B, C, h, w); None derives it from ``net``.
        warnings: about the model, such as random weights.
    """

    module: nn.Module
    net: nn.Module
    preprocess: Preprocess
    threshold: float
    limits: tuple[float, float] | None
    target_layer: str | None
    reshape: Reshape | None
    warnings: tuple[str, ...]

    def logits(self, images: Tensor) -> Tensor:
        """(B,) logits of the fake class of (B, 3, H, W) preprocessed images, with graph."""
        ...


class OwnDetector:
    """An `ArtifactNet` as a `Detector`.

    One in half precision is copied to float32: maps made from its gradients would underflow.
    """

    def __init__(self, model: ArtifactNet) -> None:
        self.model = full_precision(model)
        self.module: nn.Module = self.model
        self.net: nn.Module = self.model.backbone.net
        self.preprocess = preprocess_of(model)
        self.threshold = model.config.threshold
        self.limits = model.config.limits
        self.target_layer: str | None = None
        self.reshape: Reshape | None = None
        self.warnings = tuple(model.notices)

    def logits(self, images: Tensor) -> Tensor:
        """(B,) logits of the fake class of (B, 3, H, W) preprocessed images, with graph."""
        logit: Tensor = self.model(images).logit
        return logit


class Classifier:
    """Any torch or timm classifier of real against fake as a `Detector`.

    Example:
        ``explain(Classifier(timm.create_model("resnet50", num_classes=2)), "photo.jpg")``
    """

    def __init__(
        self,
        net: nn.Module,
        image_size: tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        resize: str = "stretch",
        fake_class: int = 1,
        threshold: float = 0.5,
        target_layer: str | None = None,
        reshape: Reshape | None = None,
    ) -> None:
        """Wrap a classifier.

        Args:
            net: takes (B, 3, H, W) and returns (B, 2) logits of two classes, or (B,) or (B, 1)
                logits of the fake class; on its device.
            image_size: input height and width, pixels; None: a timm model's own.
            mean, std: per channel, for pixel values in [0, 1]; None: a timm model's own, else
                ImageNet's.
            resize: how images get that size, see `artifactnet.data.geometry.fit_geometry`.
            fake_class: index of the fake one of two classes. The logit is the difference of the
                two, so that its sigmoid is the softmax's probability.
            threshold, target_layer, reshape: see `Detector`.

        Raises:
            ArtifactNetError: no image size, no such class or layer, or invalid settings.
        """
        if fake_class not in (0, 1):
            raise ArtifactNetError(
                f"Classifier: fake_class is {fake_class}, but there are two classes, 0 and 1"
            )
        if not 0 <= threshold <= 1:  # also true for NaN
            raise ArtifactNetError(f"Classifier: threshold must be in 0..1, not {threshold}")
        if target_layer is not None and target_layer not in dict(net.named_modules()):
            raise ArtifactNetError(
                f"Classifier: {type(net).__name__} has no layer {target_layer!r}; "
                "net.named_modules() lists them"
            )
        self.module = self.net = full_precision(net)
        self.preprocess = _preprocess(net, image_size, mean, std, resize)
        self.threshold = threshold
        self.limits: tuple[float, float] | None = None
        self.target_layer = target_layer
        self.reshape = reshape
        self.warnings: tuple[str, ...] = ()
        self._fake_class = fake_class

    def logits(self, images: Tensor) -> Tensor:
        """(B,) logits of the fake class of (B, 3, H, W) preprocessed images, with graph.

        Raises:
            ArtifactNetError: the classifier returns something else than one or two logits.
        """
        output = self.net(images)
        if isinstance(output, Tensor) and output.ndim == 0 and len(images) == 1:
            return output.reshape(1)  # nets that squeeze their output lose a batch of one
        if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != len(images):
            what = f"{tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ArtifactNetError(
                f"Classifier: {type(self.net).__name__} must return a tensor with one row per "
                f"image, not {what} for {len(images)}"
            )
        if output.shape == (len(images), 2):
            return output[:, self._fake_class] - output[:, 1 - self._fake_class]
        if output.shape in ((len(images),), (len(images), 1)):
            return output.reshape(-1)
        raise ArtifactNetError(
            f"Classifier: {type(self.net).__name__} returns {tuple(output.shape[1:])} values per "
            "image; it must be one fake logit or two classes"
        )


def _preprocess(
    net: nn.Module,
    image_size: tuple[int, int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    resize: str,
) -> Preprocess:
    """A classifier's preprocessing: the caller's settings, else those of the timm model."""
    published: dict[str, Any] = getattr(net, "pretrained_cfg", None) or {}
    if image_size is None and published:
        # a model may have been built for another size than was published
        built = getattr(getattr(net, "patch_embed", None), "img_size", None)
        image_size = built or tuple(published.get("input_size", ()))[1:] or None
    sides: tuple[Any, ...] = tuple(image_size) if isinstance(image_size, Sequence) else ()
    if len(sides) != 2 or not all(isinstance(side, Integral) and int(side) > 0 for side in sides):
        problem = "its input size is unknown" if image_size is None else f"got {image_size}"
        raise ArtifactNetError(
            f"Classifier: {type(net).__name__}: {problem}; give image_size=(height, width)"
        )
    mean = published.get("mean", _IMAGENET[0]) if mean is None else mean
    std = published.get("std", _IMAGENET[1]) if std is None else std
    try:
        return Preprocess((int(sides[0]), int(sides[1])), resize, mean, std)
    except ValueError as error:
        raise ArtifactNetError(f"Classifier: {error}") from error


def as_detector(model: Detector | ArtifactNet | BasePredictor) -> Detector:
    """A model of ours as a detector; detectors stay as they are.

    Raises:
        ArtifactNetError: a plain module, whose outputs may mean anything, a model that gives only
            predictions, or something else that is no detector.
    """
    given = model.model if isinstance(model, Predictor) else model
    if isinstance(given, ArtifactNet):
        return OwnDetector(given)
    if isinstance(given, ExportedModel | BasePredictor):
        raise ArtifactNetError(
            f"explain: {type(given).__name__} has neither layers nor gradients to explain; "
            "explain the model that an exported file was made of; use `predict` and `report` for "
            "a HEIE on a language model"
        )
    if all(hasattr(given, name) for name in ("module", "net", "preprocess", "logits")):
        return given
    if isinstance(model, nn.Module):
        raise ArtifactNetError(
            f"explain: wrap {type(model).__name__} first: "
            "Classifier(net, image_size=..., fake_class=...)"
        )
    raise ArtifactNetError(
        f"explain: {type(model).__name__} is no detector; give a model, what load_model "
        "returned, or a Classifier"
    )


def preprocess_for(detector: Detector, pixels: UInt8Array) -> Preprocess:
    """A detector's preprocessing of an image (H, W, 3); a mapper's depends on the image's size."""
    if isinstance(detector, OwnDetector):
        return preprocess_of(detector.model, pixels.shape[:2])
    return detector.preprocess


def reference_weight(detector: Detector) -> Tensor:
    """A weight of the detector: images must come on its device and in its precision.

    Raises:
        ArtifactNetError: there is none, or none that gradients can pass.
    """
    for weight in detector.module.parameters():
        if weight.is_inference():
            raise ArtifactNetError(
                f"explain: {type(detector.net).__name__} was made inside torch.inference_mode(), "
                "so that nothing can be differentiated; make or load it outside"
            )
        if weight.is_floating_point():
            return weight
    raise ArtifactNetError(f"explain: {type(detector.net).__name__} has no weights")


def full_precision(net: nn.Module) -> Any:
    """The module itself, or a float32 copy of one with weights in half precision."""
    half = (torch.float16, torch.bfloat16)
    if not any(weight.dtype in half for weight in net.parameters()):
        return net
    with exclusive(net):  # a copy must not keep the flags and hooks of another thread's work
        return copy.deepcopy(net).float()
