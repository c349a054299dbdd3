"""Forms of a training step with and without alignment, and the baselines that they are checked by.

The baselines (`naive_rollout`, `naive_gradient_rollout`) do what public scripts do, normalization
included, and share no code with the library's maps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError

FLOOR = "sdpa"
Outputs = tuple[Tensor, Tensor | None]  # logits (B,); heatmaps (B, h, w), None without alignment


class AttentionRecorder(TorchFunctionMode):
    """Records the output of every attention call, and its weights P (B, H, N, N).

    Args:
        weights: compute P and keep it in the graph.
        fused: compute the output by the fused kernel, else as P v.
    """

    def __init__(self, weights: bool, fused: bool) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []
        self.weights: list[Tensor] = []
        self._keep, self._fused = weights, fused

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run ``func``; attention as configured."""
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        if kwargs.get("attn_mask") is not None or kwargs.get("is_causal"):
            raise ArtifactNetError("the benchmark's baselines need attention without a mask")
        q, k, v = args
        weights = None
        if self._keep or not self._fused:
            scale = kwargs.get("scale") or q.shape[-1] ** -0.5
            weights = (q @ k.transpose(-2, -1) * scale).softmax(dim=-1)
        if self._keep:
            assert weights is not None
            self.weights.append(weights)
        output = func(*args, **kwargs) if self._fused else weights @ v
        self.outputs.append(output)
        return output


def plain(model: ArtifactNet, images: Tensor) -> Outputs:
    """No alignment, fused attention: the floor."""
    return model(images).logit, None


def unfused(model: ArtifactNet, images: Tensor) -> Outputs:
    """No alignment, every block computes its N x N weights."""
    with AttentionRecorder(weights=False, fused=False):
        return model(images).logit, None


def extra_backward(model: ArtifactNet, images: Tensor) -> Outputs:
    """No alignment, but the extra backward pass that gradient rollout needs."""
    with AttentionRecorder(weights=False, fused=True) as recorder:
        logit = model(images).logit
    torch.autograd.grad(logit.sum(), recorder.outputs, retain_graph=True)
    return logit, None


def naive_rollout(model: ArtifactNet, images: Tensor) -> Outputs:
    """Rollout with the weights of all blocks and heads kept, multiplied as N x N matrices."""
    with AttentionRecorder(weights=True, fused=True) as recorder:
        logit = model(images).logit
    start = model.config.attention.start_layer
    matrices = [weights.mean(dim=1) for weights in recorder.weights[start:]]
    return logit, _heatmap(model, images, matrices)


def naive_gradient_rollout(model: ArtifactNet, images: Tensor) -> Outputs:
    """Gradient rollout by ``create_graph`` through kept weights and N x N products."""
    with AttentionRecorder(weights=True, fused=False) as recorder:
        logit = model(images).logit
    kept = recorder.weights[model.config.attention.start_layer :]
    slopes = torch.autograd.grad(logit.sum(), kept, create_graph=True)
    matrices = [(p * g).mean(dim=1).clamp_min(0) for p, g in zip(kept, slopes, strict=True)]
    return logit, _heatmap(model, images, matrices)


def attention_shape(model: ArtifactNet, images: Tensor) -> tuple[int, int, int, int]:
    """(B, H, N, d) of the blocks' queries."""
    with torch.no_grad(), AttentionRecorder(weights=False, fused=True) as recorder:
        model(images)
    batch, heads, tokens, size = recorder.outputs[0].shape
    return batch, heads, tokens, size


def _heatmap(model: ArtifactNet, images: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Map of the class row of A_L ... A_1, with A = (M + I) / row sums, from M (B, N, N).

    The share a of each of n patches becomes 1 - 2^(-n a / 2) (the ``saturate`` normalization).
    """
    assert model.config.attention.normalization == "saturate"
    patch = model.backbone.patch_size
    assert patch
    eye = torch.eye(matrices[0].shape[-1], dtype=matrices[0].dtype, device=images.device)
    product = None
    for matrix in matrices:
        step = matrix + eye
        step = step / step.sum(dim=-1, keepdim=True)
        product = step if product is None else step @ product
    assert product is not None
    height, width = images.shape[-2] // patch, images.shape[-1] // patch
    shares = product[:, 0, model.backbone.prefix_tokens :].float()
    saturated = -torch.expm1(-math.log(2) * shares * (height * width / 2))
    return saturated.view(-1, height, width)


@dataclass(frozen=True)
class Form:
    """A way to take the step.

    Attributes:
        text: one line of description.
        forward: logits and heatmaps of a batch.
        gradient: forms with the same value have the same gradient; None: no alignment.
    """

    text: str
    forward: Callable[[ArtifactNet, Tensor], Outputs]
    gradient: str | None = None


def _library(form: str, second_order: bool) -> Callable[[ArtifactNet, Tensor], Outputs]:
    """The library's map with these options."""

    def forward(model: ArtifactNet, images: Tensor) -> Outputs:
        options = model.config.attention
        # on a GPU this benchmark measures the Triton kernels, which `auto` does not use yet
        used = "triton" if form == "auto" and images.is_cuda else form
        changed = dataclasses.replace(options, form=used, second_order=second_order)
        model.config.attention = changed
        try:
            output = model(images, attention=True, create_graph=True)
        finally:
            model.config.attention = options
        return output.logit, output.heatmap

    return forward


_PLAIN = Form("no alignment, fused attention: the floor", plain)
_UNFUSED = Form("no alignment, every block forms its N x N weights", unfused)

# the baseline of a method is the last of its forms
FORMS: dict[str, dict[str, Form]] = {
    "rollout": {
        FLOOR: _PLAIN,
        "unfused": _UNFUSED,
        "fused": Form(
            "model.attention.form=auto: nothing N x N is stored", _library("auto", True), "exact"
        ),
        "stored row": Form(
            "model.attention.form=stored: weights kept, the class row multiplied through them",
            _library("stored", True),
            "exact",
        ),
        "naive": Form(
            "weights of all heads and blocks kept, N x N products, as public scripts do",
            naive_rollout,
            "exact",
        ),
    },
    "gradient_rollout": {
        FLOOR: _PLAIN,
        "unfused": _UNFUSED,
        "extra backward": Form(
            "no alignment, one more backward to the attention outputs: the method's floor",
            extra_backward,
        ),
        "first order": Form(
            "second_order=false, form=auto: of a block and image one N x N matrix, heads fused, is "
            "stored while N <= 4 x width; beyond that nothing N x N",
            _library("auto", False),
            "first",
        ),
        "stored first order": Form(
            "second_order=false, form=stored: weights kept, row products",
            _library("stored", False),
            "first",
        ),
        "second order": Form(
            "second_order=true, form=auto: attention is not fused, every head's matrices stored",
            _library("auto", True),
            "second",
        ),
        "plain create_graph": Form(
            "gradient of kept weights with create_graph, N x N products, as public scripts do",
            naive_gradient_rollout,
            "second",
        ),
    },
}


def baseline_of(method: str) -> str:
    """The form that does what public scripts do."""
    return list(FORMS[method])[-1]
