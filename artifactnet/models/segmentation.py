"""From the logits of a segmentation head to probabilities and masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED_BIT

OUTPUTS = {"softmax": 1 + len(CATEGORIES), "sigmoid": len(CATEGORIES)}  # channels of a head


def probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of each category and of any artifact at all.

    Args:
        logits: (B, 8, h, w), of which a softmax is taken over background and the seven
            categories (X-AIGD B.2); or (B, 7, h, w), one sigmoid per category.

    Returns:
        (B, 7, h, w) per category and (B, h, w) of any: their sum under the softmax, their
        largest under sigmoids. Float32 or better, in [0, 1].

    Raises:
        ValueError: neither 7 nor 8 channels.
    """
    if logits.ndim != 4 or logits.shape[1] not in OUTPUTS.values():
        raise ValueError(f"expected (B, 7 or 8, h, w) logits, got {tuple(logits.shape)}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.shape[1] == OUTPUTS["sigmoid"]:
        each = logits.sigmoid()
        return each, each.amax(1)
    shares = logits.softmax(1)
    return shares[:, 1:], shares[:, 1:].sum(1).clamp(max=1)


def bit_field(
    categories: Tensor, artifact: Tensor, threshold: float, exclusive: bool, known: Sequence[int]
) -> Tensor:
    """Mask of the categories found.

    A pixel is artifact where the probability of any artifact exceeds the threshold. Under a
    softmax it then has its likeliest category; under sigmoids every category that exceeds
    the threshold itself. Categories that the model was never taught do not take part; an
    artifact pixel left without any has bit 0 (uncategorised).

    Args:
        categories: (B, 7, H, W) in [0, 1], see `probabilities`.
        artifact: (B, H, W) in [0, 1].
        threshold: artifact if above, strictly.
        exclusive: one category per pixel (softmax), or any number (sigmoids).
        known: indices 1..7 of the categories that the model was taught.

    Returns:
        (B, H, W) uint8 bit field, see `artifactnet.taxonomy`.
    """
    found = artifact > threshold
    bits = torch.zeros(artifact.shape, dtype=torch.uint8, device=artifact.device)
    if known:
        planes = categories[:, [index - 1 for index in known]]
        values = torch.tensor([1 << index for index in known], device=bits.device)
        if exclusive:
            bits = values[planes.max(1).indices].to(torch.uint8)
        else:
            bits = ((planes > threshold) * values[:, None, None]).sum(1).to(torch.uint8)
    bits = torch.where(bits == 0, UNCATEGORIZED_BIT, bits)
    return torch.where(found, bits, 0).to(torch.uint8)
