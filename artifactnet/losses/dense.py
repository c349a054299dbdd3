"""Segmentation of artifacts: weighted cross-entropy over sets of classes (X-AIGD B.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED_BIT
from artifactnet.types import Annotation

_CATEGORIES = len(CATEGORIES)
_CLASSES = 1 + _CATEGORIES  # background and the categories
_VALUES = torch.arange(256)
# (256, 8): the classes that a pixel of a bit-field value may be. Bit 0 says nothing where a
# category is named, and "any of the seven" where none is.
_MEMBERS = (_VALUES[:, None] >> torch.arange(_CLASSES) & 1).bool()
_MEMBERS[:, 0] = False
_MEMBERS[0, 0] = True
_MEMBERS[UNCATEGORIZED_BIT, 1:] = True


def segmentation_loss(
    logits: Tensor, mask: Tensor, annotation: Tensor, class_weights: Tensor
) -> Tensor:
    """Weighted pixel loss of a segmentation head, at the size of the mask.

    The paper's loss is a weighted cross-entropy over background and seven categories. Its
    artifacts overlap and other data name no category, so here a pixel's target is a set S of
    classes and its loss ``-log sum_{c in S} p_c`` (our reading; plain cross-entropy where S
    has one member). S holds the named categories; where an artifact has none of them, all
    seven; where there is no artifact, the background.

    With sigmoids the loss of a pixel is the mean of its seven binary cross-entropies, or
    ``-log max_c p_c`` where the artifact has no category.

    A pixel weighs as much as the heaviest member of its set. By annotation state:

    - artifact mask: as drawn;
    - annotated and clean (every real image): background everywhere;
    - not annotated: contributes nothing, since any pixel may be an artifact.

    The weighted sum is divided by the number of pixels of the whole batch (not by the sum of
    weights: as mmsegmentation does), annotated or not: then the mean over the processes of a
    distributed run is the loss of the joint batch.

    Args:
        logits: (B, 8, h, w), of which a softmax is taken, or (B, 7, h, w) for sigmoids; resized
            bilinearly to the mask.
        mask: (B, H, W) uint8 bit field, see `artifactnet.taxonomy`.
        annotation: (B,) values of `Annotation`.
        class_weights: (9,) >= 0: background, the seven categories, uncategorised artifact.

    Returns:
        Scalar in float32 or better. Where nothing is annotated it is a zero that still belongs
        to the graph of ``logits``, so that distributed processes stay in step.

    Raises:
        ValueError: shapes or types do not match, or the batch is empty.
    """
    _check(logits, mask, annotation, class_weights)
    annotated = annotation != int(Annotation.NONE)
    # Chosen before they grow: most fakes of X-AIGD are not annotated.
    logits, chosen = logits[annotated], mask[annotated]
    if len(logits) == 0:
        return logits.sum().to(torch.promote_types(logits.dtype, torch.float32))
    chosen = chosen * (annotation[annotated] == int(Annotation.MASK))[:, None, None]
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    with torch.autocast(logits.device.type, enabled=False):
        full = F.interpolate(precise, mask.shape[1:], mode="bilinear", align_corners=False)
        values = chosen.long()
        loss = _softmax_loss if full.shape[1] == _CLASSES else _sigmoid_loss
        each = loss(full, values)
        weights = _value_weights(class_weights.to(full))
        return (weights[values] * each).sum() / mask.numel()


def _check(logits: Tensor, mask: Tensor, annotation: Tensor, class_weights: Tensor) -> None:
    if (
        logits.ndim != 4
        or logits.shape[1] not in (_CATEGORIES, _CLASSES)
        or mask.ndim != 3
        or annotation.ndim != 1
        or not len(logits) == len(mask) == len(annotation)
        or class_weights.shape != (_CLASSES + 1,)
    ):
        raise ValueError(
            "expected logits (B, 7 or 8, h, w), mask (B, H, W), annotation (B,) and 9 class "
            f"weights, got {tuple(logits.shape)}, {tuple(mask.shape)}, "
            f"{tuple(annotation.shape)} and {tuple(class_weights.shape)}"
        )
    if mask.dtype != torch.uint8:
        raise ValueError(f"the mask must be a uint8 bit field, not {mask.dtype}")
    if logits.numel() == 0 or mask.numel() == 0:
        raise ValueError(f"the batch is empty: {tuple(logits.shape)}, {tuple(mask.shape)}")


def _value_weights(class_weights: Tensor) -> Tensor:
    """(256,) weight of a pixel by its bit-field value."""
    members = _MEMBERS.to(class_weights.device)
    weights = torch.where(members, class_weights[:_CLASSES], 0).amax(1)
    weights[UNCATEGORIZED_BIT] = class_weights[_CLASSES]
    return weights


def _softmax_loss(logits: Tensor, values: Tensor) -> Tensor:
    """(B, H, W) ``-log sum_{c in S} p_c`` of (B, 8, H, W) logits."""
    members = _MEMBERS.to(logits.device)
    log_p = logits.log_softmax(1)
    first = members.int().argmax(1)[values]
    log_set = log_p.gather(1, first[:, None])[:, 0]
    several = (members.sum(1) > 1)[values]
    if several.any():  # few pixels: only theirs are summed over the set
        outside = ~members[values[several]]
        inside = log_p.movedim(1, -1)[several].masked_fill(outside, -torch.inf)
        log_set[several] = inside.logsumexp(1)
    return -log_set


def _sigmoid_loss(logits: Tensor, values: Tensor) -> Tensor:
    """(B, H, W) mean binary cross-entropy of (B, 7, H, W) logits; see `segmentation_loss`."""
    bits = torch.tensor([c.bit for c in CATEGORIES], dtype=torch.uint8, device=logits.device)
    present = (values.byte()[:, None] & bits[:, None, None]) != 0
    each = -F.logsigmoid(torch.where(present, logits, -logits)).mean(1)
    vague = values == UNCATEGORIZED_BIT
    if vague.any():
        each[vague] = -F.logsigmoid(logits.movedim(1, -1)[vague].amax(1))
    return each
