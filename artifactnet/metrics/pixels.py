"""Category-agnostic pixel scores of a heatmap.

Perceptual artifact detection of X-AIGD (Sec. 4): true and false pixels are summed over all
images before any ratio is taken (micro average); all categories count as one; 0/0 is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchmetrics import Metric

from artifactnet.metrics.checks import require_finite
from artifactnet.metrics.confusion import pixel_scores
from artifactnet.metrics.groups import generator_names, generator_rows
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
    counts = _image_counts(heatmap, mask, annotation, labels, threshold, include_real)
    return PixelCounts(*counts.sum(dim=0).tolist())


def _image_counts(
    heatmap: Tensor,
    mask: Tensor,
    annotation: Tensor,
    labels: Tensor,
    threshold: float,
    include_real: bool = False,
) -> Tensor:
    """(B, 6) int64 `PixelCounts` of each image; arguments and errors as of `pixel_counts`."""
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
    counts = torch.zeros(len(mask), len(PixelCounts._fields), dtype=torch.int64, device=mask.device)
    counts[:, PixelCounts._fields.index("unannotated_images")] = unknown.to(counts)
    if not used.any():
        return counts
    heatmap, truth = heatmap[used].float(), mask[used] != 0
    require_finite(heatmap, "a heatmap")
    if heatmap.shape != truth.shape:
        heatmap = interpolate(heatmap[:, None], truth.shape[1:], mode="bilinear")[:, 0]
    called = heatmap > threshold
    outcomes = (called & truth, called & ~truth, ~called & truth)
    pixels = [outcome.flatten(1).sum(dim=1) for outcome in outcomes]
    images = [torch.ones_like(pixels[0]), (~called.flatten(1).any(dim=1)).long()]
    counts[used, :-1] = torch.stack([*pixels, *images], dim=1)
    return counts


class PixelMetric(Metric):
    """`pixel_scores` of fakes over a data set, overall and per generator.

    Counts are int64 and add up over processes.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, generators: Sequence[str], threshold: float = 0.5) -> None:
        """Start empty.

        Args:
            generators: names of all that may occur, equal on every process; ``"real"`` is ignored.
            threshold: as in `pixel_counts`.
        """
        super().__init__()
        self.names = generator_names(generators)
        self.threshold = threshold
        rows = max(1, len(self.names))  # processes cannot exchange a tensor without elements
        zeros = torch.zeros(rows, len(PixelCounts._fields), dtype=torch.int64)
        self.add_state("counts", default=zeros, dist_reduce_fx="sum")

    def update(
        self,
        heatmap: Tensor,
        mask: Tensor,
        annotation: Tensor,
        labels: Tensor,
        generators: Sequence[str],
    ) -> None:
        """Add a batch; arguments and errors as in `pixel_counts`.

        ``generators`` holds B names, used for fakes only.

        Raises:
            ValueError: also if a fake's generator is not among those named at construction.
        """
        rows = generator_rows(self.names, generators, labels)
        new = _image_counts(heatmap.detach(), mask, annotation, labels, self.threshold)
        device = self.counts.device
        self.counts.index_add_(0, rows.to(device), new.to(device))

    def compute(self) -> dict[str, dict[str, Any]]:
        """`pixel_scores` and all counts by name: ``"all"``, and each generator that was evaluated.

        A generator without annotated fakes has no row.
        """
        result = {"all": _scores(self.counts.sum(dim=0))}
        rows = zip(self.names, map(_scores, self.counts), strict=False)  # no name: one empty row
        return result | {name: row for name, row in rows if row["evaluated_images"]}


def _scores(row: Tensor) -> dict[str, Any]:
    counts = PixelCounts(*row.tolist())
    return {**pixel_scores(counts.tp, counts.fp, counts.fn), **counts._asdict()}
