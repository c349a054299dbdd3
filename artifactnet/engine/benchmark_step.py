"""One training step with attention alignment, in each of the forms that the benchmark compares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from artifactnet.config import AttentionConfig, ModelConfig, OptimConfig
from artifactnet.engine.benchmark_forms import FLOOR, FORMS, Form
from artifactnet.engine.benchmark_naive import attention_shape
from artifactnet.losses.alignment import alignment_loss
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.param_groups import parameter_groups
from artifactnet.types import ArtifactNetError

_LOSS_SCALE = 2.0**10  # of float16, whose gradients underflow otherwise
_BENIGN_WEIGHT = 0.4
_SHARPER, _LOUDER = 4.0, 10.0  # factors on random weights, see `_model`


@dataclass(frozen=True)
class StepSetting:
    """What is trained for a step.

    Attributes:
        backbone: a plain timm ViT.
        size: side of the images, pixels; whole patches.
        batch_size: images in a step.
        dtype: ``float32``, or ``bfloat16`` or ``float16`` by autocast.
        device: ``cpu`` or ``cuda``.
        method: ``rollout`` or ``gradient_rollout``.
        start_layer: first block of the map; -k: the last k.
        every: align at every N-th step.
    """

    backbone: str = "vit_small_patch14_dinov2"
    size: int = 518
    batch_size: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    method: str = "rollout"
    start_layer: int = 0
    every: int = 1


class Figures(NamedTuple):
    """What an aligned form computes: heatmap (B, h, w), its loss, the norm of its gradient."""

    heatmap: Tensor
    loss: float
    gradient_norm: float


class TrainingStep:
    """Model, optimizer and batch of a setting; `run` takes a step in any form.

    The learning rate is 0: a step costs what it costs, and all forms see the same weights.

    Args:
        setting: what to build.

    Raises:
        ArtifactNetError: the backbone has no rollout, or the image does not fill whole patches.
    """

    def __init__(self, setting: StepSetting) -> None:
        self.setting = setting
        self.model = _model(setting).to(setting.device)
        grid = self.model.grid
        assert grid is not None
        groups = parameter_groups(self.model, OptimConfig(lr=0.0))
        self._optimizer = torch.optim.AdamW(groups, lr=0.0)
        generator = torch.Generator().manual_seed(0)
        batch, side = setting.batch_size, setting.size
        images = torch.randn(batch, 3, side, side, generator=generator)
        labels = torch.randint(2, (batch,), generator=generator).float()
        share = torch.randint(2, (batch, *grid), generator=generator).float()
        self._images, self._labels, self._share = (
            tensor.to(setting.device) for tensor in (images, labels, share)
        )
        self._annotated = torch.ones(batch, dtype=torch.bool, device=setting.device)
        self._scale = _LOSS_SCALE if setting.dtype == "float16" else 1.0

    @property
    def tokens(self) -> int:
        """N: patches and prefix tokens."""
        assert self.model.grid is not None
        return math.prod(self.model.grid) + self.model.backbone.prefix_tokens

    @property
    def dtype(self) -> torch.dtype:
        """Of the attention's queries and keys."""
        found: torch.dtype = getattr(torch, self.setting.dtype)
        return found

    def attention_shape(self) -> tuple[int, int, int, int]:
        """(B, H, N, d) of the blocks' queries."""
        return attention_shape(self.model, self._images)

    def run(self, form: str) -> None:
        """Take ``setting.every`` steps, the first of them aligned; wait until they are done."""
        for step in range(self.setting.every):
            self._backward(FORMS[self.setting.method][form if step == 0 else FLOOR])
            self._optimizer.step()
            self._optimizer.zero_grad()
        if self.setting.device == "cuda":
            torch.cuda.synchronize()

    def figures(self, form: str) -> Figures:
        """What an aligned form computes, to be compared with another's.

        Raises:
            ArtifactNetError: the gradient is not finite.
        """
        heatmap, alignment = self._backward(FORMS[self.setting.method][form], verdict=False)
        assert heatmap is not None
        assert alignment is not None
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        self._optimizer.zero_grad()
        if not math.isfinite(norm):
            raise ArtifactNetError(
                f"alignment-step: the gradient of the {form!r} form is not finite in "
                f"{self.setting.dtype}; use --dtype bfloat16 or float32"
            )
        return Figures(heatmap, float(alignment), norm)

    def release(self) -> None:
        """Let go of what a step that broke off has left."""
        self._optimizer.zero_grad()
        if self.setting.device == "cuda":
            torch.cuda.empty_cache()

    def _backward(self, form: Form, verdict: bool = True) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of the loss, with BCE or without; heatmap and alignment loss."""
        half = self.dtype != torch.float32
        with torch.autocast(self.setting.device, self.dtype, enabled=half):
            logit, heatmap = form.judge(self.model, self._images)
        parts = []
        if verdict:
            parts.append(F.binary_cross_entropy_with_logits(logit.float(), self._labels))
        alignment = None
        if heatmap is not None:
            target = (self._share, self._annotated)
            alignment = alignment_loss(heatmap.float(), *target, _BENIGN_WEIGHT)
            parts.append(alignment)
        (torch.stack(parts).sum() * self._scale).backward()
        if self._scale != 1:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, 1 / self._scale)
        if heatmap is None or alignment is None:
            return None, None
        return heatmap.detach(), alignment.detach()


def _model(setting: StepSetting) -> ArtifactNet:
    """A model in training mode whose random weights behave somewhat like trained ones.

    As timm makes them, attention is almost even, and DINOv2's LayerScale lets next to nothing
    through: all forms would have the same map, whatever they did.
    """
    torch.manual_seed(0)
    options = AttentionConfig(method=setting.method, start_layer=setting.start_layer)
    config = ModelConfig(
        backbone=setting.backbone,
        image_size=[setting.size, setting.size],
        pretrained="false",
        attention=options,
    )
    model = ArtifactNet(config, load_pretrained=False)
    if not model.has_attention:
        raise ArtifactNetError(f"alignment-step: {model.no_attention}")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("attn.qkv.weight"):
                parameter.mul_(_SHARPER)
            elif name.endswith(".gamma"):
                parameter.fill_(1.0)
        model.head.weight.mul_(_LOUDER)
    return model.train()
