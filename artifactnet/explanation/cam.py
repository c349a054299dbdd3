"""Activation maps of the grad-cam package (Grad-CAM and its variants), guarded.

The package is silently wrong when it gets fewer targets than images, swallows errors in its
context manager, changes the model's state, and turns rounding into pictures. Here each image has
its own target, errors are raised, the model's state is restored, and a map that is constant to
within rounding is all 0.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifactnet.explanation.detector import Detector, Reshape, reference_weight
from artifactnet.explanation.layers import Layer, fits, name_of, target_layer
from artifactnet.models.state import undisturbed
from artifactnet.types import ArtifactNetError, Float32Array

CAM_METHODS: dict[str, str] = {
    "grad_cam": "Grad-CAM (Selvaraju et al. 2017): channels weighted by their mean gradient",
    "grad_cam_smooth": "Grad-CAM, mean over mirrored, darker and brighter copies of the image",
    "grad_cam_plus_plus": "Grad-CAM++ (Chattopadhay et al. 2018): gradients weighted per place",
    "hires_cam": "HiResCAM (Draelos & Carin 2020): activations times gradients, place by place",
    "xgrad_cam": "XGrad-CAM (Fu et al. 2020): gradients weighted by normalised activations",
    "layer_cam": "LayerCAM (Jiang et al. 2021): activations times positive gradients",
    "eigen_cam": "EigenCAM (Muhammad & Yeasin 2020): first principal component; no class",
    "eigen_grad_cam": "EigenCAM of activations times gradients",
    "score_cam": "Score-CAM (Wang et al. 2020): channels weighted by the logit behind each mask",
}
_CLASSES = {
    "grad_cam": "GradCAM",
    "grad_cam_smooth": "GradCAM",
    "grad_cam_plus_plus": "GradCAMPlusPlus",
    "hires_cam": "HiResCAM",
    "xgrad_cam": "XGradCAM",
    "layer_cam": "LayerCAM",
    "eigen_cam": "EigenCAM",
    "eigen_grad_cam": "EigenGradCAM",
    "score_cam": "ScoreCAM",
}
_WITHOUT_GRADIENT = ("eigen_cam", "score_cam")
_MASKS = 16  # masked images that pass through the model together
_ROUNDING = 1e-6  # a spread below this share of what it was computed from is none


def activation_maps(
    detector: Detector, images: Tensor, method: str, layer: Layer | None = None
) -> Float32Array:
    """One map per image, made and scaled by the grad-cam package.

    Args:
        detector: its flags, weights, gradients and hooks are left as found.
        images: (B, 3, H, W) preprocessed, of the size that ``detector.preprocess`` makes.
        method: one of `CAM_METHODS`.
        layer: result of `target_layer`; None looks for it, which may take a forward pass.

    Returns:
        (B, H, W) in [0, 1], stretched per image as the package does it; 0 everywhere for a map
        that is constant to within rounding.

    Raises:
        ArtifactNetError: an unknown method, images of another size, no layer to make a map of, one
            that runs more than once or that the logit does not depend on, or a logit, activation
            or gradient that is not a number.
    """
    if method not in CAM_METHODS:
        raise ArtifactNetError(f"unknown method {method!r}; known: {', '.join(CAM_METHODS)}")
    size = detector.preprocess.size
    if images.ndim != 4 or images.shape[1] != 3 or tuple(images.shape[2:]) != size:
        raise ArtifactNetError(
            f"{method}: images must be (B, 3, {size[0]}, {size[1]}) as detector.preprocess "
            f"makes them, not {tuple(images.shape)}"
        )
    if len(images) == 0:
        return np.zeros((0, *size), np.float32)
    weight = reference_weight(detector)
    gradient = method not in _WITHOUT_GRADIENT
    with (
        torch.inference_mode(False),
        torch.set_grad_enabled(gradient),
        torch.autocast(weight.device.type, enabled=False),
        undisturbed(detector.module),
    ):
        # weights learn nothing here, so gradients reach the layer from the images
        frames = images.detach().to(weight).clone().requires_grad_(gradient)
        maps = _run(detector, frames, method, layer or target_layer(detector))
    if maps.shape != (len(images), *size) or not np.isfinite(maps).all():
        raise ArtifactNetError(f"{method}: the map is not a number (NaN)")
    return maps


def _run(detector: Detector, frames: Tensor, method: str, target: Layer) -> Float32Array:
    layer, reshape = target
    names = (name for name, module in detector.net.named_modules() if module is layer)
    where = f"layer {next(names)!r} of {name_of(detector.net)}"
    trusted = detector.reshape is not None
    record = _recorder(reshape, where, None if trusted else detector.preprocess.size)
    cam = _package_class(method)(_FakeLogit(detector), [layer], record)
    cam.where = where
    cam.projects = method.startswith("eigen")
    try:
        maps: Float32Array = cam(
            frames, [itemgetter(0)] * len(frames), aug_smooth=method == "grad_cam_smooth"
        )
    finally:
        cam.activations_and_grads.release()
    return maps


class _FakeLogit(nn.Module):
    """The detector in the package's form: a module that returns (B, 1)."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.module = detector.module
        self._detector = detector

    def forward(self, images: Tensor) -> Tensor:
        logits = self._detector.logits(images)
        if logits.shape != (len(images),):
            raise ArtifactNetError(
                f"the detector returns logits of {tuple(logits.shape)} for {len(images)} images"
            )
        if not bool(logits.isfinite().all()):
            raise ArtifactNetError("the model's answer is not a number (NaN)")
        if images.requires_grad and not logits.requires_grad:
            raise ArtifactNetError(
                f"{name_of(self._detector.net)} computes its logit without gradient; "
                f"only {' and '.join(_WITHOUT_GRADIENT)} need none"
            )
        return logits[:, None]


def _recorder(reshape: Reshape | None, where: str, size: tuple[int, int] | None) -> Reshape:
    """Brings the layer's output, and its gradient, to the package, and checks them."""

    def record(output: Any) -> Tensor:
        maps = reshape(output) if reshape is not None else output
        shape = tuple(maps.shape) if isinstance(maps, Tensor) else ()
        if len(shape) != 4 or (size is not None and not fits(shape[2], shape[3], size)):
            what = shape or type(maps).__name__
            raise ArtifactNetError(
                f"{where} gives {what} and not a map (B, C, h, w) with the image's proportions; "
                "choose another with target_layer= or give reshape="
            )
        if not bool(maps.isfinite().all()):
            raise ArtifactNetError(f"{where}: an activation or gradient is not a number (NaN)")
        # a copy, because the network may go on to change its activations in place
        precise = torch.promote_types(maps.dtype, torch.float32)
        return maps.detach().to(precise).clone(memory_format=torch.contiguous_format)

    return record


class _Guarded:
    """Mixed into a class of the package: checks what it recorded and what it made of it."""

    where: str
    projects: bool

    def compute_cam_per_layer(self, input_tensor: Tensor, *rest: Any) -> Any:
        """As the package does, of exactly one activation and, where needed, one gradient."""
        this: Any = self
        recorded = this.activations_and_grads
        if len(recorded.activations) != 1:
            raise ArtifactNetError(
                f"{self.where} runs {len(recorded.activations)} times in a forward pass, not "
                "once; choose another with target_layer="
            )
        if this.uses_gradients and len(recorded.gradients) != 1:
            raise ArtifactNetError(
                f"the logit does not depend on {self.where}; choose another with target_layer="
            )
        parent: Any = super()
        return parent.compute_cam_per_layer(input_tensor, *rest)

    def get_cam_image(
        self, images: Tensor, layer: Any, targets: Any, activations: Any, grads: Any, smooth: bool
    ) -> npt.NDArray[np.floating]:
        """(B, h, w) as the package makes it, but 0 where it differs by rounding alone."""
        parent: Any = super()
        cam = parent.get_cam_image(images, layer, targets, activations, grads, smooth)
        scale = np.abs(cam).max(axis=(1, 2))
        if self.projects:  # the mean is subtracted, so that only rounding may remain
            signal = activations if grads is None else activations * grads
            scale = np.linalg.norm(np.abs(signal).max(axis=(2, 3)), axis=1)
        spread = np.ptp(np.maximum(cam, 0), axis=(1, 2))
        return np.where((spread <= _ROUNDING * scale)[:, None, None], 0, cam)


class _MaskedScores(_Guarded):
    """Score-CAM's weights in little memory; the package holds all masked images at once."""

    def get_cam_weights(
        self, images: Tensor, _layer: Any, _targets: Any, activations: Any, _grads: Any
    ) -> Float32Array:
        """(B, C) softmax over the channels of the logits of the masked image."""
        this: Any = self
        this.activations_and_grads.release()  # or every masked pass would be recorded as well
        planes = torch.from_numpy(activations).to(images)
        rows = []
        for image, channels in zip(images, planes, strict=True):
            logits = []
            for few in channels.split(_MASKS):
                masks = F.interpolate(
                    few[:, None], size=image.shape[1:], mode="bilinear", align_corners=True
                )
                low = masks.amin(dim=(2, 3), keepdim=True)
                high = masks.amax(dim=(2, 3), keepdim=True)
                logits.append(this.model(image * ((masks - low) / (high - low + 1e-8))))
            rows.append(torch.cat(logits)[:, 0])
        return torch.stack(rows).float().softmax(dim=-1).cpu().numpy()


def _package_class(method: str) -> Any:
    try:
        import pytorch_grad_cam
    except ImportError as error:
        raise ArtifactNetError(
            f"{method} needs the grad-cam package: pip install 'grad-cam>=1.5.4'"
        ) from error
    mixin = _MaskedScores if method == "score_cam" else _Guarded
    name = _CLASSES[method]
    return type(name, (mixin, getattr(pytorch_grad_cam, name)), {})
