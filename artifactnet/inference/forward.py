"""Passing images through a model without leaving a trace on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.state import evaluating
from artifactnet.types import ModelOutput


def forward(
    model: ArtifactNet,
    images: Sequence[torch.Tensor],
    *,
    attention: bool = False,
    segmentation: bool = False,
) -> list[ModelOutput]:
    """Outputs of a batch, on the CPU.

    Args:
        model: runs on its own device in eval mode; its flags are restored.
        images: each (3, H, W) float32, normalised, all of one size.
        attention: also compute attention and heatmap.
        segmentation: also compute the segmentation head's logits.

    Returns:
        One output per image, without batch axis; the logit as float64.
    """
    if not images:
        return []
    device = next(model.parameters()).device
    batch = torch.stack(list(images)).to(device)
    # no_grad rather than inference_mode: gradient rollout needs autograd inside
    with evaluating(model), torch.no_grad():
        output = model(batch, attention=attention, segmentation=segmentation)
    logits = output.logit.detach().double().cpu()
    maps = [_to_cpu(x) for x in (output.attention, output.heatmap, output.segmentation)]
    return [
        ModelOutput(logit, *(None if tensor is None else tensor[k] for tensor in maps))
        for k, logit in enumerate(logits)
    ]


def _to_cpu(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach().float().cpu()
