"""How well a predicted heatmap agrees with an annotated one, image by image.

The measures of RichHF-18K and HEIE (Sec. 4.2), as Bylinskii et al. (2019) define them and the
MIT/Tuebingen benchmark computes them. All take one map (H, W) or a batch (B, H, W), work in
float64, and return one number per image: shape () or (B,).

Two rules hold for all of them:

- A constant prediction, zero included, says nothing about where: it is taken for the uniform map
  (KLD and SIM of the uniform map, CC 0, NSS 0). Constant is what varies by less than 1e-6 of its
  largest value, since resizing a constant map rounds.
- Where an annotation leaves nothing to measure the answer is NaN; each function says when.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from artifactnet.types import ArtifactNetError

EPSILON = 2.2204e-16  # of the MIT/Tuebingen code
_CONSTANT = 1e-6  # largest relative variation of a map that counts as constant


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference over the pixels; 0 is best.

    Args:
        prediction: (B, H, W) or (H, W) in [0, 1].
        target: annotated heatmap of the same shape in [0, 1]; may be empty.

    Raises:
        ValueError: shapes differ, or the target is not finite.
        ArtifactNetError: the prediction is not finite.
    """
    predicted, true = _pair(prediction, target)
    return (predicted - true).square().mean(-1)


def kld(prediction: Tensor, target: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Divergence of the annotation q from the prediction p, both scaled to sum 1; 0 is best.

    sum q log(epsilon + q / (p + epsilon)), natural logarithm (Bylinskii et al. 2019, Eq. 6).

    Args:
        prediction: (B, H, W) or (H, W), nowhere negative; all zero: taken for uniform.
        target: annotated heatmap of the same shape, nowhere negative.
        epsilon: keeps annotated mass where the prediction has none finite (about 36 a unit).

    Returns:
        NaN where the target is empty.

    Raises:
        ValueError: shapes differ, a value is negative, or the target is not finite.
        ArtifactNetError: the prediction is not finite.
    """
    p, q = _distributions(prediction, target)
    return (q * torch.log(epsilon + q / (p + epsilon))).sum(-1)


def sim(prediction: Tensor, target: Tensor) -> Tensor:
    """Intersection of both maps as histograms of sum 1: sum min(p, q), in [0, 1]; 1 is best.

    Args:
        prediction: (B, H, W) or (H, W), nowhere negative; all zero: taken for uniform.
        target: annotated heatmap of the same shape, nowhere negative.

    Returns:
        NaN where the target is empty.

    Raises:
        ValueError: shapes differ, a value is negative, or the target is not finite.
        ArtifactNetError: the prediction is not finite.
    """
    p, q = _distributions(prediction, target)
    return torch.minimum(p, q).sum(-1)


def cc(prediction: Tensor, target: Tensor) -> Tensor:
    """Pearson's correlation of the pixels of both maps, in [-1, 1]; 1 is best.

    Args:
        prediction: (B, H, W) or (H, W).
        target: annotated heatmap of the same shape.

    Returns:
        0 where only the prediction is constant; NaN where the target is (empty or full).

    Raises:
        ValueError: shapes differ, or the target is not finite.
        ArtifactNetError: the prediction is not finite.
    """
    predicted, true = _pair(prediction, target)
    constant = _is_constant(true)[..., 0]
    product = (_standardised(_without_constant(predicted)) * _standardised(true)).mean(-1)
    return torch.where(constant, math.nan, product)


def fixations(target: Tensor, share: float = 0.5) -> Tensor:
    """Pixels that count as looked at, for `nss` and `auc_judd`.

    Both were made for points that people fixated. An annotated heatmap has none; our reading of
    the papers, which do not say, is every pixel above a share of the map's own maximum. So a
    mask is its artifact pixels, a blurred mask about the mask before blurring, and no image with
    an annotation is without fixations.

    Args:
        target: annotated heatmap, (B, H, W) or (H, W), nowhere negative.
        share: of the maximum, in [0, 1); 0 takes every pixel above zero.

    Returns:
        bool of the same shape; no pixel where the target is empty.

    Raises:
        ValueError: ``share`` is outside [0, 1), the target is negative or not finite.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share of the maximum must be in [0, 1), not {share}")
    _check_target(target)
    if bool((target < 0).any()):
        raise ValueError("an annotated heatmap cannot be negative")
    values = target.double()
    return values > share * values.amax((-2, -1), keepdim=True)


def nss(prediction: Tensor, fixated: Tensor) -> Tensor:
    """Normalised scanpath saliency: mean of the standardised prediction at the fixations.

    The prediction is shifted and scaled to mean 0 and (population) standard deviation 1; chance
    is 0, more is better (Peters et al. 2005).

    Args:
        prediction: (B, H, W) or (H, W).
        fixated: bool of the same shape, see `fixations`.

    Returns:
        0 where the prediction is constant; NaN where nothing is fixated.

    Raises:
        ValueError: shapes differ, or ``fixated`` is not bool.
        ArtifactNetError: the prediction is not finite.
    """
    values, inside = _at_fixations(prediction, fixated)
    return (_standardised(values) * inside).sum(-1) / inside.sum(-1)


def auc_judd(prediction: Tensor, fixated: Tensor) -> Tensor:
    """Area under Judd's ROC curve (Judd et al. 2009): exact, without random jitter.

    The curve has a point at the prediction's value of every one of the n fixations, share of
    fixations not below it against share of other pixels not below it, and straight lines between
    the points, (0, 0) and (1, 1). Against the full ROC curve that adds 1/(2n) of the other pixels
    that lie above the lowest fixation. Where pixels are equal Judd's code adds noise to order
    them; this is the mean over all orders. A constant map gets 1/2 + 1/(2n + 2).

    Args:
        prediction: (B, H, W) or (H, W).
        fixated: bool of the same shape, see `fixations`.

    Returns:
        In [0, 1], 1 is best; NaN where no pixel or every pixel is fixated.

    Raises:
        ValueError: shapes differ, or ``fixated`` is not bool.
        ArtifactNetError: the prediction is not finite.
    """
    values, inside = _at_fixations(prediction, fixated)
    ordered, order = values.sort(-1)
    inside = inside.gather(-1, order)
    hits = inside.sum(-1).double()
    others = inside.shape[-1] - hits
    area = (_ranks(ordered) * inside).sum(-1) - hits * (
        hits + 1
    ) / 2  # the full curve's: Mann-Whitney's U
    lowest = ordered.masked_fill(~inside, math.inf).amin(-1, keepdim=True)
    tied = ordered == lowest
    tied_hits = (tied & inside).sum(-1).double()
    # in a random order of ties, that share of the others stands above the last fixation
    above = ((ordered > lowest) & ~inside).sum(-1)
    above = above + (tied & ~inside).sum(-1) * tied_hits / (tied_hits + 1)
    return (area + above / 2) / (hits * others)  # 0/0 where there is nothing to tell apart


def _pair(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps in float64 with their pixels in the last dimension."""
    _check(prediction, target)
    _check_target(target)
    return prediction.double().flatten(-2), target.double().flatten(-2)


def _at_fixations(prediction: Tensor, fixated: Tensor) -> tuple[Tensor, Tensor]:
    """The prediction in float64 and where it is looked at, pixels in the last dimension."""
    _check(prediction, fixated)
    if fixated.dtype != torch.bool:
        raise ValueError(f"fixations must be bool, not {fixated.dtype}; see `fixations`")
    return _without_constant(prediction.double().flatten(-2)), fixated.flatten(-2)


def _check(prediction: Tensor, target: Tensor) -> None:
    if prediction.ndim not in (2, 3) or prediction.shape != target.shape:
        raise ValueError(
            "need two maps (H, W) or batches (B, H, W) of one shape, got "
            f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    if not math.prod(prediction.shape[-2:]):
        raise ValueError("a map without pixels cannot be measured")
    if not bool(prediction.isfinite().all()):
        raise ArtifactNetError(
            "a heatmap holds values that are not finite: the model's weights are broken or its "
            "training diverged; use an earlier checkpoint"
        )


def _check_target(target: Tensor) -> None:
    if not bool(target.isfinite().all()):
        raise ValueError("an annotated heatmap holds values that are not finite")


def _is_constant(values: Tensor) -> Tensor:
    """(..., 1) bool for (..., N)."""
    low, top = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    return top - low <= _CONSTANT * torch.maximum(low.abs(), top.abs())


def _without_constant(values: Tensor) -> Tensor:
    """(..., N) with constant maps replaced by exactly 1 everywhere."""
    return torch.where(_is_constant(values), 1.0, values)


def _standardised(values: Tensor) -> Tensor:
    """Mean 0, population deviation 1; exactly constant maps become 0."""
    centred = values - values.mean(-1, keepdim=True)
    deviation = centred.square().mean(-1, keepdim=True).sqrt()
    return centred / torch.where(deviation > 0, deviation, 1.0)


def _ranks(ordered: Tensor) -> Tensor:
    """Rank of every value of sorted (..., N), from 1; equal values share their mean rank.

    Several times as fast as a binary search for every value.
    """
    place = torch.arange(ordered.shape[-1], device=ordered.device).expand_as(ordered)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    last = torch.ones_like(new)
    last[..., :-1] = new[..., 1:]
    lowest = torch.where(new, place, 0).cummax(-1).values
    highest = torch.where(last, place, place.shape[-1]).flip(-1).cummin(-1).values.flip(-1)
    return (lowest + highest).double() / 2 + 1


def _distributions(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps divided by their sums; an empty target becomes NaN."""
    predicted, true = _pair(prediction, target)
    if bool((predicted < 0).any() | (true < 0).any()):
        raise ValueError("a map with negative values is no distribution")
    predicted = _without_constant(predicted)
    return predicted / predicted.sum(-1, keepdim=True), true / true.sum(-1, keepdim=True)
