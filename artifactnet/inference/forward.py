"""Passing images through a model without leaving a trace on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from artifactnet.inference.backends.exported import AnyModel
from artifactnet.models.state import by_size, evaluating
from artifactnet.types import ModelOutput


def forward(
    model: AnyModel,
    images: Sequence[torch.Tensor],
    *,
    attention: bool = False,
    segmentation: bool = False,
    heatmap: bool = False,
) -> list[ModelOutput]:
    """Outputs of images, on the CPU.

    Args:
        model: runs on its own device in eval mode; its flags are restored.
        images: each (3, H, W) float32, normalised; those of one size go through together.
        attention: also compute attention and heatmap.
        segmentation: also compute the segmentation head's logits.
        heatmap: also compute the heatmap head's map, deviation and score.

    Returns:
        One output per image, without batch axis; the logit as float64.
    """
    device = next(model.parameters()).device
    answers: dict[int, ModelOutput] = {}
    for indices, batch in by_size(images):
        found = _together(model, batch.to(device), attention, segmentation, heatmap)
        answers.update(zip(indices, found, strict=True))
    return [answers[k] for k in range(len(images))]


def _together(
    model: AnyModel, batch: torch.Tensor, attention: bool, segmentation: bool, heatmap: bool
) -> list[ModelOutput]:
    # no_grad rather than inference_mode: gradient rollout needs autograd inside
    with evaluating(model), torch.no_grad():
        output = model(batch, attention=attention, segmentation=segmentation, heatmap=heatmap)
    logits = output.logit.detach().cpu().double()  # MPS has no float64
    names = ("attention", "heatmap", "segmentation", "sigma", "score", "feature")
    found: dict[str, Any] = {name: _to_cpu(getattr(output, name)) for name in names}
    return [
        ModelOutput(logit, **{name: x[k] for name, x in found.items() if x is not None})
        for k, logit in enumerate(logits)
    ]


def _to_cpu(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach().float().cpu()
