"""Batches of one image, which batch norm cannot normalise where a map is a single pixel."""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError


def check_single_images(model: ArtifactNet) -> None:
    """Refuse to train on batches of one image if a batch norm would see one value per channel.

    The model is run once, on an empty image; its statistics stay as they are.

    Raises:
        ArtifactNetError: a batch norm that learns would see a single value per channel.
    """
    if not any(isinstance(m, _BatchNorm) and m.training for m in model.train().modules()):
        return
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    images = torch.zeros(1, 3, *model.image_size, device=next(model.parameters()).device)
    try:
        with torch.no_grad(), torch.random.fork_rng():
            model(images, segmentation=model.has_segmentation, heatmap=model.has_heatmap)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        height, width = model.image_size
        raise ArtifactNetError(
            "data.batch_size must be at least 2, and so must the number of training images: the "
            f"batch norm of {model.config.backbone} would see one value per channel of a single "
            f"image of {height}x{width} pixels; a larger model.image_size or freeze=[backbone] "
            "helps, too"
        ) from None
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)
