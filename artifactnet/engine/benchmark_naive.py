"""Alignment the way public scripts compute its map: the yardsticks of the training-step benchmark.

Written apart from `artifactnet.models`, so that equal numbers mean something.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError

Judged = tuple[Tensor, Tensor | None]  # logits (B,), and heatmaps (B, h, w) where they are made


class _Watch(TorchFunctionMode):
    """Keeps what went through every attention call: output, and weights P (B, H, N, N).

    Args:
        weights: form P and keep it in the graph.
        fused: let the kernel compute the output; else it is P v.
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
        """Run ``func``, or attention in the way asked for."""
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


def plain(model: ArtifactNet, images: Tensor) -> Judged:
    """No alignment, fused attention: the floor."""
    return model(images).logit, None


def unfused(model: ArtifactNet, images: Tensor) -> Judged:
    """No alignment, every block forms its N x N weights."""
    with _Watch(weights=False, fused=False):
        return model(images).logit, None


def extra_backward(model: ArtifactNet, images: Tensor) -> Judged:
    """No alignment, but the backward pass that gradient rollout cannot do without."""
    with _Watch(weights=False, fused=True) as watch:
        logit = model(images).logit
    torch.autograd.grad(logit.sum(), watch.outputs, retain_graph=True)
    return logit, None


def naive_rollout(model: ArtifactNet, images: Tensor) -> Judged:
    """Rollout with the weights of all blocks and heads kept, multiplied as N x N matrices."""
    with _Watch(weights=True, fused=True) as watch:
        logit = model(images).logit
    start = model.config.attention.start_layer
    matrices = [weights.mean(dim=1) for weights in watch.weights[start:]]
    return logit, _heatmap(model, images, matrices)


def naive_gradient_rollout(model: ArtifactNet, images: Tensor) -> Judged:
    """Gradient rollout by ``create_graph`` through kept weights and N x N products."""
    with _Watch(weights=True, fused=False) as watch:
        logit = model(images).logit
    kept = watch.weights[model.config.attention.start_layer :]
    slopes = torch.autograd.grad(logit.sum(), kept, create_graph=True)
    matrices = [(p * g).mean(dim=1).clamp_min(0) for p, g in zip(kept, slopes, strict=True)]
    return logit, _heatmap(model, images, matrices)


def attention_shape(model: ArtifactNet, images: Tensor) -> tuple[int, int, int, int]:
    """(B, H, N, d) of the blocks' queries."""
    with torch.no_grad(), _Watch(weights=False, fused=True) as watch:
        model(images)
    batch, heads, tokens, size = watch.outputs[0].shape
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
