"""Category-agnostic pixel scores of a heatmap.

Perceptual artifact detection of X-AIGD (Sec. 4): true and false pixels are summed over all
images before any ratio is taken (micro average); all categories count as one; 0/0 is 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchmetrics import Metric

from artifactnet.metrics.checks import require_finite
from artifactnet.metrics.confusion import pixel_scores
from artifactnet.types import Annotation


class PixelCounts(NamedTuple):
    """Pixels of the evaluated images, and numbers of images."""

    tp: int  # artifact pixels found
    fp: int  # clean pixels called artifact
    fn: int  # artifact pixels missed
    evaluated_images: int
    zero_prediction_images: int  # evaluated, without any predicted pixel
    unannotated_images: int  # left out, since their artifacts are unknown


def pixel_counts(
    heatmap: Tensor,
    mask: Tensor,
    annotation: Tensor,
    labels: Tensor,
    threshold: float,
    include_real: bool = False,
) -> PixelCounts:
    """Compare heatmaps with masks.

    Annotated fakes are evaluated, with artifacts (MASK) or without (CLEAN). Images in the state
    NONE are left out and counted. Real images are left out, as in the benchmark, unless
    ``include_real``; then every pixel called artifact in them is a false positive.

    Args:
        heatmap: (B, h, w) in [0, 1]; resized to the masks by bilinear interpolation.
        mask: (B, H, W) uint8 bit field, any bit is an artifact; all zero for CLEAN.
        annotation: (B,) values of `Annotation`.
        labels: (B,) 0 real, 1 fake.
        threshold: a pixel is called artifact if ``heatmap > threshold``, strictly.
        include_real: also evaluate annotated real images.

    Raises:
        ValueError: shapes do not match.
        ArtifactNetError: a heatmap that is evaluated is not finite.
    """
    size = mask.shape[:1]
    if (
        heatmap.ndim != 3
        or mask.ndim != 3
        or not (heatmap.shape[:1] == size == annotation.shape == labels.shape)
    ):
        raise ValueError(
            f"shapes do not match: heatmap {tuple(heatmap.shape)}, mask {tuple(mask.shape)}, "
            f"annotation {tuple(annotation.shape)}, labels {tuple(labels.shape)}"
        )
    chosen = torch.ones_like(labels, dtype=torch.bool) if include_real else labels == 1
    unknown = chosen & (annotation == Annotation.NONE)
    used = chosen & ~unknown
    if not used.any():
        return PixelCounts(0, 0, 0, 0, 0, int(unknown.sum()))
    heatmap, truth = heatmap[used].float(), mask[used] != 0
    require_finite(heatmap, "a heatmap")
    if heatmap.shape != truth.shape:
        heatmap = interpolate(heatmap[:, None], truth.shape[1:], mode="bilinear")[:, 0]
    called = heatmap > threshold
    return PixelCounts(
        tp=int((called & truth).sum()),
        fp=int((called & ~truth).sum()),
        fn=int((~called & truth).sum()),
        evaluated_images=len(called),
        zero_prediction_images=int((~called.flatten(1).any(dim=1)).sum()),
        unannotated_images=int(unknown.sum()),
    )


class PixelMetric(Metric):
    """`pixel_scores` over a data set; counts are int64 and add up over processes."""

    full_state_update = False
    counts: Tensor

    def __init__(self, threshold: float = 0.5, include_real: bool = False) -> None:
        """Start empty; ``threshold`` and ``include_real`` as in `pixel_counts`."""
        super().__init__()
        self.threshold = threshold
        self.include_real = include_real
        zeros = torch.zeros(len(PixelCounts._fields), dtype=torch.int64)
        self.add_state("counts", default=zeros, dist_reduce_fx="sum")

    def update(self, heatmap: Tensor, mask: Tensor, annotation: Tensor, labels: Tensor) -> None:
        """Add a batch; arguments and errors as in `pixel_counts`."""
        counts = pixel_counts(
            heatmap.detach(), mask, annotation, labels, self.threshold, self.include_real
        )
        self.counts += torch.tensor(counts, device=self.counts.device)

    def compute(self) -> dict[str, Any]:
        """`pixel_scores` of all images together, and all counts by name."""
        counts = PixelCounts(*self.counts.tolist())
        return {**pixel_scores(counts.tp, counts.fp, counts.fn), **counts._asdict()}
