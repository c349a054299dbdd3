"""Losses of heatmap, deviation and score (HEIE Sec. 3), and of features (Tung & Mori 2019).

Annotated and pseudo-labelled images learn from the same terms; all of them are means over the
batch, computed in float32 or wider.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# log sigma is clamped to it: -inf would be the optimum of an exact map
LOG_SIGMA_LIMITS = (-7.0, 7.0)
_LOG_EPS = 1e-12  # least argument of a logarithm
_DISTANCE_EPS = 1e-6  # least focal distance
_SHARE_EPS = 1e-6  # added to every pixel before a map is normalised to sum 1
_VARIANCE_EPS = 1e-8  # added to a predicted map's variance


def resize_target(target: Tensor, size: tuple[int, int]) -> Tensor:
    """Target maps (B, H, W) in [0, 1] at the size (h, w) of the prediction.

    Returns:
        (B, h, w) float32 or better, in [0, 1]: the mean of each cell's pixels where neither
        side grows (cells overlap by a pixel where h or w does not divide), else bilinear.

    Raises:
        ValueError: ``target`` is not (B, H, W), or a size is empty.
    """
    if target.ndim != 3 or target.numel() == 0 or min(size) < 1:
        raise ValueError(f"cannot resize maps {tuple(target.shape)} to {tuple(size)}")
    precise = _precise(target)
    if precise.shape[1:] == size:
        return precise
    if size[0] <= target.shape[1] and size[1] <= target.shape[2]:
        return F.interpolate(precise[:, None], size, mode="area")[:, 0]
    return F.interpolate(precise[:, None], size, mode="bilinear")[:, 0]


def focal_loss(heatmap: Tensor, target: Tensor, annotated: Tensor, gamma: float) -> Tensor:
    """Focal loss for soft targets: ``|t - p|^gamma`` times the binary cross-entropy.

    HEIE names the focal loss against the imbalance and no formula; this is the form for
    continuous targets (quality focal loss, Li et al. 2020, Eq. 5), which for targets of 0 and 1
    is the focal loss without its class weight. Mean over the pixels of each annotated image.

    Args:
        heatmap: (B, h, w) predicted p in [0, 1].
        target: (B, h, w) t in [0, 1].
        annotated: (B,) bool, or the batch's annotation states (NONE is 0, so False).
        gamma: focal exponent >= 0; 0 is the cross-entropy.

    Raises:
        ValueError: shapes do not match, the batch is empty, or gamma is negative.
    """
    weight = _pixel_weight(heatmap, target, annotated.bool())
    if gamma < 0:
        raise ValueError(f"gamma must not be negative, got {gamma}")
    p, t = _precise(heatmap), _precise(target)
    entropy = -t * p.clamp(min=_LOG_EPS).log() - (1 - t) * (1 - p).clamp(min=_LOG_EPS).log()
    # at 0 the power has no finite gradient where gamma < 1
    focus = (t - p).abs().clamp(min=_DISTANCE_EPS) ** gamma
    return (weight * focus * entropy).mean()


def laplace_loss(logit: Tensor, log_sigma: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Likelihood of the target under a Laplace distribution per pixel (HEIE Eq. 3).

    ``sqrt(2) / sigma * |sigmoid(logit) - target| + log sigma``, up to a constant the negative
    log-likelihood where sigma is the standard deviation. Mean of weight times that over all
    pixels. ``log_sigma`` is clamped to `LOG_SIGMA_LIMITS`; it can be negative, and so can the loss.

    Args:
        logit: (B, h, w); the heatmap is its sigmoid.
        log_sigma: (B, h, w).
        target: (B, h, w) in [0, 1].
        weight: (B,) of images or (B, h, w) of pixels, >= 0.

    Raises:
        ValueError: shapes do not match or the batch is empty.
    """
    scale = _pixel_weight(logit, target, weight)
    if log_sigma.shape != logit.shape:
        raise ValueError(f"log_sigma {tuple(log_sigma.shape)} and logit {tuple(logit.shape)}")
    spread = _precise(log_sigma).clamp(*LOG_SIGMA_LIMITS)
    distance = (_precise(logit).sigmoid() - _precise(target)).abs()
    return (scale * (math.sqrt(2) * torch.exp(-spread) * distance + spread)).mean()


def divergence_loss(heatmap: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """KL(target || heatmap) of the maps as distributions over pixels, in nats.

    Each map plus 1e-6 is normalised to sum 1, so that an empty prediction is a uniform one. An
    image whose target is 0 everywhere has no distribution and contributes 0; so do clean images.

    Args:
        heatmap: (B, h, w) predicted, in [0, 1].
        target: (B, h, w) in [0, 1].
        weight: (B,) of images, or (B, h, w) of pixels: then both maps are multiplied by it
            before they are normalised, and the image counts by its mean. All >= 0.

    Raises:
        ValueError: shapes do not match or the batch is empty.
    """
    scale = _pixel_weight(heatmap, target, weight)
    p, q = (scale * (_precise(x) + _SHARE_EPS) for x in (heatmap, target))
    p, q = (x / _safe(x.sum((1, 2), keepdim=True)) for x in (p, q))
    counts = (q > 0) & ((scale * target).amax((1, 2), keepdim=True) > 0)
    ratio = torch.where(counts, q, 1.0).log() - torch.where(counts, p, 1.0).log()
    return (scale.mean((1, 2)) * (q * ratio).sum((1, 2))).mean()


def correlation_loss(heatmap: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - CC: one minus Pearson's correlation of the pixels of each image.

    An image whose target is constant (clean, or artifact everywhere) has no correlation and
    contributes 0. A constant prediction has a correlation of 0, so a loss of 1, and a finite
    gradient: 1e-8 is added to the prediction's variance.

    Args:
        heatmap: (B, h, w) predicted, in [0, 1].
        target: (B, h, w) in [0, 1].
        weight: (B,) of images, or (B, h, w) of pixels: then means are weighted by it, and the
            image counts by its mean. All >= 0.

    Raises:
        ValueError: shapes do not match or the batch is empty.
    """
    scale = _pixel_weight(heatmap, target, weight)
    share = scale / _safe(scale.sum((1, 2), keepdim=True))
    p, t = (_precise(x) for x in (heatmap, target))
    seen = scale > 0
    highest = t.masked_fill(~seen, -torch.inf).amax((1, 2))
    varies = highest > t.masked_fill(~seen, torch.inf).amin((1, 2))
    p, t = (x - (share * x).sum((1, 2), keepdim=True) for x in (p, t))
    spread = (share * t**2).sum((1, 2))
    varies = varies & (spread > 0)  # a difference in the last bit has no square in float32
    norm = ((share * p**2).sum((1, 2)) + _VARIANCE_EPS) * torch.where(varies, spread, 1.0)
    correlation = (share * p * t).sum((1, 2)) / norm.sqrt()
    return (scale.mean((1, 2)) * varies * (1 - correlation)).mean()


def score_loss(score: Tensor, target: Tensor) -> Tensor:
    """Squared error of the plausibility score.

    Args:
        score: (B,) predicted, in [0, 1].
        target: (B,) in [0, 1]; NaN where there is no score: such an image contributes 0.

    Raises:
        ValueError: shapes do not match or the batch is empty.
    """
    if score.ndim != 1 or score.shape != target.shape or len(score) == 0:
        raise ValueError(f"score {tuple(score.shape)} and target {tuple(target.shape)}")
    known = ~target.isnan()
    error = _precise(score) - torch.where(known, _precise(target), 0.0)
    return (known * error**2).mean()


def similarity_loss(feature: Tensor, target: Tensor) -> Tensor:
    """How differently student and teacher relate the images of a batch (Tung & Mori 2019, Eq. 4).

    With G the (B, B) products of all pairs of features, each row divided by its L2 norm, the loss
    is ``|G_teacher - G_student|_F^2 / B^2``. The two may have different numbers of channels. It
    lies in [0, 4 / B]; a single image relates to nothing: 0. Computed in float32 or better, under
    autocast as well. In a distributed run each process compares its own images. ``feature`` (B, C)
    is the student's, ``target`` (B, D) the teacher's.

    Raises:
        ValueError: shapes do not match or the batch is empty.
    """
    if feature.ndim != 2 or target.ndim != 2 or len(feature) != len(target) or len(feature) == 0:
        raise ValueError(f"feature {tuple(feature.shape)} and target {tuple(target.shape)}")
    with torch.autocast(feature.device.type, enabled=False):
        return (_relations(target) - _relations(feature)).square().mean()


def _pixel_weight(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """(B, h, w) of a weight per image or per pixel, after a check of all shapes."""
    shape = prediction.shape
    if len(shape) != 3 or target.shape != shape or weight.shape not in (shape[:1], shape):
        raise ValueError(
            f"shapes do not match: prediction {tuple(shape)}, target {tuple(target.shape)}, "
            f"weight {tuple(weight.shape)}"
        )
    if prediction.numel() == 0:
        raise ValueError(f"the batch is empty: prediction {tuple(shape)}")
    weight = weight.to(_precise(prediction).dtype)
    return weight[:, None, None].expand(shape) if weight.ndim == 1 else weight


def _precise(x: Tensor) -> Tensor:
    """At least float32: squares and quotients in bf16 are too coarse."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _safe(total: Tensor) -> Tensor:
    """A sum to divide by; 1 where it is 0 and every summand is 0 too."""
    return torch.where(total > 0, total, 1.0)


def _relations(feature: Tensor) -> Tensor:
    precise = _precise(feature)
    return F.normalize(precise @ precise.T, dim=1)
