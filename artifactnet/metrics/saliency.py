"""Saliency metrics: heatmaps against annotated heatmaps, and against a teacher's.

The protocol is that of RichHF-18K and HEIE (Sec. 4.2): the squared error over all annotated images
and over those with an empty annotation; KLD, CC, SIM, AUC-Judd and NSS over those with a non-empty
annotation. Every metric is a mean over images.

All measures take maps of one shape, (B, H, W) or (H, W), and return a float64 value per map. They
raise a ValueError for shapes that differ and targets that are not finite, and an
`ArtifactNetError` for predictions that are not finite.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchmetrics import Metric

from artifactnet.metrics.checks import require_finite
from artifactnet.metrics.correlation import average_ranks
from artifactnet.types import Annotation

EPSILON = 2.2204e-16  # of the MIT/Tuebingen code
_CONSTANT = 1e-6  # largest relative variation of a map that counts as constant

EMPTY = "MSE GT=0"  # squared error over images with an empty annotation
FIGURES = ("MSE", EMPTY, "KLD", "CC", "SIM", "AUC-Judd", "NSS")
GROUPS = ("all", "marked", "real", "fake")  # of images, for the agreement with a teacher


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference over the pixels of maps in [0, 1], empty ones too; 0 is best."""
    predicted, true = _pair(prediction, target)
    return (predicted - true).square().mean(-1)


def kld(prediction: Tensor, target: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Divergence of the annotation q from the prediction p, both scaled to sum 1; 0 is best.

    sum q log(epsilon + q / (p + epsilon)), natural logarithm (Bylinskii et al. 2019, Eq. 6). An
    all-zero prediction counts as uniform; NaN where the target is empty. ``epsilon`` keeps the
    value finite where only the prediction is zero (about 36 per unit of annotated mass).

    Raises:
        ValueError: a value is negative.
    """
    p, q = _distributions(prediction, target)
    return (q * torch.log(epsilon + q / (p + epsilon))).sum(-1)


def sim(prediction: Tensor, target: Tensor) -> Tensor:
    """Intersection of both maps as histograms of sum 1: sum min(p, q), in [0, 1]; 1 is best.

    An all-zero prediction counts as uniform; NaN where the target is empty.

    Raises:
        ValueError: a value is negative.
    """
    p, q = _distributions(prediction, target)
    return torch.minimum(p, q).sum(-1)


def cc(prediction: Tensor, target: Tensor) -> Tensor:
    """Pearson's correlation of the pixels of both maps, in [-1, 1]; 1 is best.

    0 where only the prediction is constant; NaN where the target is (empty or full).
    """
    predicted, true = _pair(prediction, target)
    constant = _is_constant(true)[..., 0]
    product = (_standardised(_without_constant(predicted)) * _standardised(true)).mean(-1)
    return torch.where(constant, math.nan, product)


def fixations(target: Tensor, share: float = 0.5) -> Tensor:
    """Pixels that count as fixated, for `nss` and `auc_judd`.

    Both were defined for points that people fixated. An annotated heatmap has none, and the papers
    do not specify a replacement; we take every pixel above a share of the map's own maximum. A mask
    yields its artifact pixels, a blurred mask about the mask before blurring, and every non-empty
    annotation has fixations.

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
    _require_finite_target(target)
    if bool((target < 0).any()):
        raise ValueError("an annotated heatmap cannot be negative")
    values = target.double()
    return values > share * values.amax((-2, -1), keepdim=True)


def nss(prediction: Tensor, fixated: Tensor) -> Tensor:
    """Normalised scanpath saliency: mean of the standardised prediction at the fixations.

    The prediction is shifted and scaled to mean 0 and (population) standard deviation 1; chance
    is 0, more is better (Peters et al. 2005). 0 where the prediction is constant; NaN where nothing
    is fixated (``fixated``: bool, see `fixations`).

    Raises:
        ValueError: ``fixated`` is not bool.
    """
    values, inside = _at_fixations(prediction, fixated)
    return (_standardised(values) * inside).sum(-1) / inside.sum(-1)


def auc_judd(prediction: Tensor, fixated: Tensor) -> Tensor:
    """Area under Judd's ROC curve (Judd et al. 2009): exact, without random jitter.

    The curve has a point at the prediction's value at each of the n fixations (share of fixations
    not below it against share of other pixels not below it), joined by straight lines with (0, 0)
    and (1, 1). Compared with the full ROC curve this adds 1/(2n) of the other pixels above the
    lowest fixation. Judd's code breaks ties by noise; this is the mean over all orders of ties. A
    constant map gets 1/2 + 1/(2n + 2).

    Returns:
        In [0, 1], 1 is best; NaN where no pixel or every pixel is fixated (see `fixations`).

    Raises:
        ValueError: ``fixated`` is not bool.
    """
    values, inside = _at_fixations(prediction, fixated)
    ranks = torch.from_numpy(average_ranks(values.detach().cpu().numpy())).to(values.device)
    hits = inside.sum(-1).double()
    others = inside.shape[-1] - hits
    area = (ranks * inside).sum(-1) - hits * (hits + 1) / 2  # full curve: Mann-Whitney's U
    lowest = values.masked_fill(~inside, math.inf).amin(-1, keepdim=True)
    tied = values == lowest
    tied_hits = (tied & inside).sum(-1).double()
    # in a random order of ties, that share of the others is above the last fixation
    above = ((values > lowest) & ~inside).sum(-1)
    above = above + (tied & ~inside).sum(-1) * tied_hits / (tied_hits + 1)
    return (area + above / 2) / (hits * others)  # 0/0 without hits or others


def saliency_values(heatmap: Tensor, target: Tensor, share: float = 0.5) -> Tensor:
    """All measures of every image, from (B, H, W) maps in [0, 1]; see `fixations` for ``share``.

    Returns:
        (B, 7) float64 in the order of `FIGURES`; NaN where undefined: the second if something is
        annotated, those after it if nothing is (an all-zero target), CC if the annotation is
        constant, AUC-Judd if every pixel is fixated.
    """
    empty = target.flatten(1).amax(1) == 0
    error = mse(heatmap, target)
    fixated = fixations(target, share)
    pairs = [measure(heatmap, target) for measure in (kld, cc, sim)]
    points = [measure(heatmap, fixated) for measure in (auc_judd, nss)]
    return torch.stack([error, torch.where(empty, error, torch.nan), *pairs, *points], dim=1)


class SaliencyMetric(Metric):
    """Means of `saliency_values`; sums and counts add up over processes."""

    full_state_update = False
    sums: Tensor
    counts: Tensor
    unannotated: Tensor

    def __init__(self, share: float = 0.5) -> None:
        """Start empty; ``share`` of a target's maximum is the limit of `fixations`."""
        super().__init__()
        self.share = share
        zeros = torch.zeros(len(FIGURES), dtype=torch.float64)
        self.add_state("sums", default=zeros, dist_reduce_fx="sum")
        self.add_state("counts", default=zeros.long(), dist_reduce_fx="sum")
        self.add_state("unannotated", default=zeros.long()[:1], dist_reduce_fx="sum")

    def update(self, heatmap: Tensor, target: Tensor, annotation: Tensor) -> None:
        """Add a batch.

        Images in the state NONE are left out and counted; real images are evaluated like fakes
        that are annotated as clean: their target is empty.

        Args:
            heatmap: (B, h, w) in [0, 1]; resized to the target by bilinear interpolation.
            target: (B, H, W) annotated heatmap in [0, 1].
            annotation: (B,) values of `Annotation`.

        Raises:
            ValueError: shapes do not match, or a target is negative or not finite.
            ArtifactNetError: a heatmap that is evaluated is not finite.
        """
        _check_batch(heatmap, target)
        if annotation.shape != target.shape[:1]:
            raise ValueError(f"{len(target)} targets, annotation {tuple(annotation.shape)}")
        used = annotation != Annotation.NONE
        self.unannotated += (~used).sum().to(self.device)
        if not used.any():
            return
        target = target[used]
        values = saliency_values(_resized(heatmap[used], target), target, self.share)
        _add(self.sums, self.counts, values)

    def compute(self) -> dict[str, Any]:
        """Mean of each of `FIGURES` (None where no image has it) and counts of images.

        ``images`` evaluated, ``empty_images`` among them without any artifact,
        ``unannotated_images`` left out; ``counts``: number of images of each mean.
        """
        means: dict[str, Any] = _means(self.sums, self.counts, FIGURES)
        counts = dict(zip(FIGURES, self.counts.tolist(), strict=True))
        return means | {
            "images": counts["MSE"],
            "empty_images": counts[EMPTY],
            "unannotated_images": int(self.unannotated),
            "counts": counts,
        }


def agreement_values(heatmap: Tensor, teacher: Tensor, seen: Tensor | None = None) -> Tensor:
    """CC and squared error of every image over the pixels that the teacher saw (None: all of them).

    Returns:
        (B, 2) float64 for (B, H, W) maps in [0, 1]. CC is 0 where only the student's map is
        constant, NaN where the teacher's is; both are NaN where no pixel was seen.
    """
    if seen is None or bool(seen.all()):
        return torch.stack([cc(heatmap, teacher), mse(heatmap, teacher)], dim=1)
    values = []
    for own, other, visible in zip(heatmap, teacher, seen, strict=True):
        if visible.any():
            pixels = own[visible][None], other[visible][None]  # a map of one row
            values.append(torch.stack([cc(*pixels), mse(*pixels)]))
        else:
            values.append(heatmap.new_full((2,), torch.nan, dtype=torch.float64))
    return torch.stack(values)


class TeacherAgreementMetric(Metric):
    """How a student's heatmaps agree with its teacher's: mean CC and squared error over images."""

    full_state_update = False
    sums: Tensor
    counts: Tensor

    def __init__(self, threshold: float = 0.5) -> None:
        """Start empty; a teacher's pixel above ``threshold`` counts as marked."""
        super().__init__()
        self.threshold = threshold
        zeros = torch.zeros(len(GROUPS), 2, dtype=torch.float64)
        self.add_state("sums", default=zeros, dist_reduce_fx="sum")
        self.add_state("counts", default=zeros.long(), dist_reduce_fx="sum")

    def update(
        self,
        heatmap: Tensor,
        teacher: Tensor | None,
        seen: Tensor | None = None,
        label: Tensor | None = None,
    ) -> None:
        """Add a batch, see `agreement_values`.

        Args:
            heatmap: (B, h, w) of the student, resized to the teacher's by bilinear interpolation.
            teacher: (B, H, W) in [0, 1]; None: no teacher labels, nothing is counted.
            seen: (B, H, W) bool, pixels that the teacher saw; None: all. Images without any are
                not counted.
            label: (B,) 1 for fakes, 0 for real images; None: these groups stay empty.

        Raises:
            ValueError: shapes do not match, or a teacher's map is not finite.
            ArtifactNetError: a student's map is not finite.
        """
        if teacher is None:
            return
        _check_batch(heatmap, teacher)
        if not len(teacher):
            return
        values = agreement_values(_resized(heatmap, teacher), teacher, seen)
        visible = teacher if seen is None else teacher * seen
        none = torch.zeros(len(teacher), dtype=torch.bool, device=teacher.device)
        members = (
            ~none,
            visible.flatten(1).amax(1) > self.threshold,
            none if label is None else label == 0,
            none if label is None else label == 1,
        )
        for group, chosen in enumerate(members):
            _add(self.sums[group], self.counts[group], values[chosen])

    def compute(self) -> dict[str, Any]:
        """``CC`` and ``MSE`` over all images, None where no image has it, and over groups of them.

        Beside them ``images`` and ``constant_images`` among these, where the teacher's map is
        constant; the same under ``marked`` (the teacher marks something, the papers' "GT > 0"),
        ``real`` and ``fake``.
        """
        groups: list[dict[str, Any]] = []
        for sums, counts in zip(self.sums, self.counts, strict=True):
            correlated, images = counts.tolist()
            means = _means(sums, counts, ("CC", "MSE"))
            groups.append({**means, "images": images, "constant_images": images - correlated})
        return {**groups[0], **dict(zip(GROUPS[1:], groups[1:], strict=True))}


def _pair(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps in float64 with their pixels in the last dimension."""
    _check_maps(prediction, target)
    _require_finite_target(target)
    return prediction.double().flatten(-2), target.double().flatten(-2)


def _at_fixations(prediction: Tensor, fixated: Tensor) -> tuple[Tensor, Tensor]:
    """The prediction in float64 and its fixations, pixels in the last dimension."""
    _check_maps(prediction, fixated)
    if fixated.dtype != torch.bool:
        raise ValueError(f"fixations must be bool, not {fixated.dtype}; see `fixations`")
    return _without_constant(prediction.double().flatten(-2)), fixated.flatten(-2)


def _check_maps(prediction: Tensor, target: Tensor) -> None:
    if prediction.ndim not in (2, 3) or prediction.shape != target.shape:
        raise ValueError(
            "need two maps (H, W) or batches (B, H, W) of one shape, got "
            f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    if not math.prod(prediction.shape[-2:]):
        raise ValueError("a map has no pixels")
    require_finite(prediction, "a heatmap")


def _require_finite_target(target: Tensor) -> None:
    if not bool(target.isfinite().all()):
        raise ValueError("an annotated heatmap is not finite")


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


def _distributions(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps divided by their sums; an empty target becomes NaN."""
    predicted, true = _pair(prediction, target)
    if bool((predicted < 0).any() | (true < 0).any()):
        raise ValueError("a map with negative values is not a distribution")
    predicted = _without_constant(predicted)
    return predicted / predicted.sum(-1, keepdim=True), true / true.sum(-1, keepdim=True)


def _check_batch(heatmap: Tensor, target: Tensor) -> None:
    if heatmap.ndim != 3 or target.ndim != 3 or len(heatmap) != len(target):
        raise ValueError(
            f"need heatmaps (B, h, w) and targets (B, H, W), got {tuple(heatmap.shape)} and "
            f"{tuple(target.shape)}"
        )


def _resized(heatmap: Tensor, target: Tensor) -> Tensor:
    heatmap = heatmap.detach().float()
    if heatmap.shape == target.shape:
        return heatmap
    return interpolate(heatmap[:, None], target.shape[1:], mode="bilinear")[:, 0]


def _add(sums: Tensor, counts: Tensor, values: Tensor) -> None:
    """Add (B, K) values to sums and counts in place; NaN is no value."""
    sums += values.nansum(0).to(sums.device)
    counts += (~values.isnan()).sum(0).to(counts.device)


def _means(sums: Tensor, counts: Tensor, names: tuple[str, ...]) -> dict[str, float | None]:
    pairs = zip(names, sums.tolist(), counts.tolist(), strict=True)
    return {name: total / count if count else None for name, total, count in pairs}
