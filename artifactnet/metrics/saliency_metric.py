"""Saliency figures over a data set: heatmaps against annotation, and against a teacher.

The protocol is that of RichHF-18K and HEIE (Sec. 4.2): the squared error over all annotated images
and over those with an empty annotation; KLD, CC, SIM, AUC-Judd and NSS over those in which
something is annotated. Every figure is a mean over images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchmetrics import Metric

from artifactnet.metrics.saliency import auc_judd, cc, fixations, kld, mse, nss, sim
from artifactnet.types import Annotation

EMPTY = "MSE GT=0"  # squared error over images with an empty annotation
FIGURES = ("MSE", EMPTY, "KLD", "CC", "SIM", "AUC-Judd", "NSS")
GROUPS = ("all", "marked", "real", "fake")  # that agreement with a teacher is told of


def saliency_values(heatmap: Tensor, target: Tensor, share: float = 0.5) -> Tensor:
    """Every figure of every image.

    Args:
        heatmap: (B, H, W) in [0, 1].
        target: (B, H, W) annotated heatmap in [0, 1]; all zero: looked at, nothing wrong.
        share: of a target's maximum above which a pixel is fixated, see `saliency.fixations`.

    Returns:
        (B, 7) float64 in the order of `FIGURES`; NaN where an image has no such figure: the
        second one if something is annotated, those after it if nothing is, CC if the annotation
        is constant, AUC-Judd if it makes every pixel fixated.

    Raises:
        ValueError: shapes differ, or the target is negative or not finite.
        ArtifactNetError: a heatmap is not finite.
    """
    empty = target.flatten(1).amax(1) == 0
    error = mse(heatmap, target)
    looked = fixations(target, share)
    pairs = [measure(heatmap, target) for measure in (kld, cc, sim)]
    points = [measure(heatmap, looked) for measure in (auc_judd, nss)]
    of_empty = torch.where(empty, error, torch.nan)
    return torch.stack([error, of_empty, *pairs, *points], dim=1)


class SaliencyMetric(Metric):
    """Means of `saliency_values`; sums and counts add up over processes."""

    full_state_update = False
    sums: Tensor
    counts: Tensor
    unannotated: Tensor

    def __init__(self, share: float = 0.5) -> None:
        """Fix what is fixated.

        Args:
            share: of a target's maximum above which a pixel is fixated.
        """
        super().__init__()
        self.share = share
        zeros = torch.zeros(len(FIGURES), dtype=torch.float64)
        self.add_state("sums", default=zeros, dist_reduce_fx="sum")
        self.add_state("counts", default=zeros.long(), dist_reduce_fx="sum")
        self.add_state("unannotated", default=zeros.long()[:1], dist_reduce_fx="sum")

    def update(self, heatmap: Tensor, target: Tensor, annotation: Tensor) -> None:
        """Add a batch.

        Images in the state NONE are left out and counted; real images take part like fakes that
        are annotated as clean: their target is empty.

        Args:
            heatmap: (B, h, w) in [0, 1]; brought to the target's size by bilinear interpolation.
            target: (B, H, W) annotated heatmap in [0, 1].
            annotation: (B,) values of `Annotation`.

        Raises:
            ValueError: shapes do not match, or a target is negative or not finite.
            ArtifactNetError: a heatmap that takes part is not finite.
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
        """Mean of each of `FIGURES` (None without an image that has it) and counts of images.

        Returns:
            the figures; ``images`` that took part, ``empty_images`` among them without any
            artifact, ``unannotated_images`` that were left out; ``counts``: images behind each
            figure.
        """
        found: dict[str, Any] = _means(self.sums, self.counts, FIGURES)
        counts = dict(zip(FIGURES, self.counts.tolist(), strict=True))
        return found | {
            "images": counts["MSE"],
            "empty_images": counts[EMPTY],
            "unannotated_images": int(self.unannotated),
            "counts": counts,
        }


def agreement_values(heatmap: Tensor, teacher: Tensor, seen: Tensor | None = None) -> Tensor:
    """CC and squared error of every image, over the pixels that the teacher saw.

    Args:
        heatmap: (B, H, W) of the student in [0, 1].
        teacher: (B, H, W) in [0, 1].
        seen: (B, H, W) bool; None: all of it.

    Returns:
        (B, 2) float64. Where the student's map is constant the CC is 0; where the teacher's is it
        is NaN, since there is nothing to correlate with. Both are NaN where no pixel was seen.

    Raises:
        ValueError: shapes differ, or a teacher's map is not finite.
        ArtifactNetError: a student's map is not finite.
    """
    if seen is None or bool(seen.all()):
        return torch.stack([cc(heatmap, teacher), mse(heatmap, teacher)], dim=1)
    found = []
    for own, other, looked in zip(heatmap, teacher, seen, strict=True):
        if looked.any():
            pixels = own[looked][None], other[looked][None]  # a map of one row
            found.append(torch.stack([cc(*pixels), mse(*pixels)]))
        else:
            found.append(heatmap.new_full((2,), torch.nan, dtype=torch.float64))
    return torch.stack(found)


class TeacherAgreementMetric(Metric):
    """How a student's heatmaps agree with its teacher's: mean CC and squared error over images."""

    full_state_update = False
    sums: Tensor
    counts: Tensor

    def __init__(self, threshold: float = 0.5) -> None:
        """Fix when a teacher marks something.

        Args:
            threshold: above which its heatmap says artifact.
        """
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
            heatmap: (B, h, w) of the student in [0, 1]; brought to the teacher's size by bilinear
                interpolation.
            teacher: (B, H, W) in [0, 1]; None where no teacher answered: nothing is counted.
            seen: (B, H, W) bool, pixels that the teacher saw; None: all. An image of which it saw
                nothing is not counted.
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
        """Means over all images, and over groups of them.

        Returns:
            ``CC`` and ``MSE``, None without an image that has it; ``images`` and, among them,
            those where the teacher's map is constant, ``constant_images``; the same under
            ``marked`` (the teacher marks something, as the papers' "GT > 0"), ``real`` and
            ``fake``.
        """
        found = [
            _means(sums, counts, ("CC", "MSE")) | _counted(counts)
            for sums, counts in zip(self.sums, self.counts, strict=True)
        ]
        return {**found[0], **dict(zip(GROUPS[1:], found[1:], strict=True))}


def _counted(counts: Tensor) -> dict[str, Any]:
    correlated, images = counts.tolist()
    return {"images": images, "constant_images": images - correlated}


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
