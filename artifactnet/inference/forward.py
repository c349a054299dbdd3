"""Running a model on images of several sizes, with its state restored afterwards."""

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
        images: each (3, H, W) float32, normalised; those of one size form a batch.
        attention: also compute attention and its heatmap.
        segmentation: also compute the segmentation head's logits.
        heatmap: also compute the heatmap head's map, deviation and score.

    Returns:
        One output per image, without batch axis; the logit as float64.
    """
    device = next(model.parameters()).device
    flags = {"attention": attention, "segmentation": segmentation, "heatmap": heatmap}
    outputs: dict[int, ModelOutput] = {}
    for indices, batch in by_size(images):
        # no_grad rather than inference_mode: gradient rollout needs autograd inside
        with evaluating(model), torch.no_grad():
            output = model(batch.to(device), **flags)
        logits = output.logit.detach().cpu().double()  # MPS has no float64
        parts: dict[str, Any] = {
            name: getattr(output, name).detach().float().cpu()
            for name in ("attention", "heatmap", "segmentation", "sigma", "score", "feature")
            if getattr(output, name) is not None
        }
        for row, (index, logit) in enumerate(zip(indices, logits, strict=True)):
            outputs[index] = ModelOutput(logit, **{name: x[row] for name, x in parts.items()})
    return [outputs[k] for k in range(len(images))]
