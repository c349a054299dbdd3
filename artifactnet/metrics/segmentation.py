"""Pixel scores of masks, per category and category-agnostic.

Perceptual artifact detection of X-AIGD (Sec. 3.3): true and false pixels are summed over all
images before any ratio is taken (micro average); 0/0 is 0. Categories may overlap, so masks
are bit fields (see `artifactnet.taxonomy`) and every category is scored on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from artifactnet.metrics.confusion import pixel_scores
from artifactnet.metrics.groups import (
    annotated_fakes,
    generator_names,
    generator_rows,
    uncategorized,
)
from artifactnet.taxonomy import AGNOSTIC, CATEGORIES

ROWS = (AGNOSTIC, *(category.label for category in CATEGORIES))
_COLUMNS = ("tp", "fp", "fn", "evaluated_images", "zero_prediction_images")


def category_counts(predicted: Tensor, truth: Tensor) -> Tensor:
    """True positive, false positive and false negative pixels of every image and category.

    Args:
        predicted: (B, H, W) uint8 bit field.
        truth: (B, H, W) uint8 bit field, on the same device.

    Returns:
        (B, 8, 3) int64. Row 0 is category-agnostic (a pixel with any bit, bit 0 included, is
        an artifact), rows 1..7 are the categories; the columns are TP, FP, FN.

    Raises:
        ValueError: shapes differ or are not (B, H, W), or a mask is not uint8.
    """
    if predicted.ndim != 3 or predicted.shape != truth.shape:
        raise ValueError(
            f"need two (B, H, W) masks of one shape, got {tuple(predicted.shape)} and "
            f"{tuple(truth.shape)}"
        )
    if predicted.dtype != torch.uint8 or truth.dtype != torch.uint8:
        raise ValueError(f"masks must be uint8, got {predicted.dtype} and {truth.dtype}")
    # bit 0 now means "any artifact", so that all eight rows are counted alike
    called = predicted & 0xFE | (predicted != 0)
    true = truth & 0xFE | (truth != 0)
    outcomes = torch.stack([called & true, called & ~true, true & ~called], dim=1)
    # one histogram of byte values per image and outcome visits every pixel once, not once per
    # category
    cells = outcomes.flatten(0, 1).flatten(1).long()
    cells += 256 * torch.arange(len(cells), device=cells.device)[:, None]
    histogram = torch.bincount(cells.flatten(), minlength=256 * len(cells)).view(-1, 3, 256)
    values = torch.arange(256, device=cells.device)
    has_bit = (values[:, None] >> torch.arange(len(ROWS), device=cells.device)) & 1
    return (histogram[..., None] * has_bit).sum(dim=2).transpose(1, 2)


class SegmentationMetric(Metric):
    """`pixel_scores` per category over a data set, overall and per generator.

    Counts are int64 and add up over processes.
    """

    full_state_update = False
    counts: Tensor
    unannotated: Tensor

    def __init__(self, generators: Sequence[str]) -> None:
        """Start empty.

        Args:
            generators: names of all that may occur, equal on every process; ``"real"`` is ignored.
        """
        super().__init__()
        self.names = generator_names(generators)
        rows = max(1, len(self.names))  # processes cannot exchange a tensor without elements
        zeros = torch.zeros(rows, len(ROWS), len(_COLUMNS), dtype=torch.int64)
        self.add_state("counts", default=zeros, dist_reduce_fx="sum")
        self.add_state("unannotated", default=zeros[:, 0, 0].clone(), dist_reduce_fx="sum")

    def update(
        self,
        predicted: Tensor,
        truth: Tensor,
        annotation: Tensor,
        labels: Tensor,
        generators: Sequence[str],
    ) -> None:
        """Add a batch.

        Annotated fakes are evaluated; fakes in the state NONE are left out and counted; real
        images are left out. A fake with artifacts of unknown category only (bit 0) counts in the
        category-agnostic row alone.

        Args:
            predicted: (B, H, W) uint8 bit field.
            truth: (B, H, W) uint8 bit field; all zero for CLEAN.
            annotation: (B,) values of `Annotation`.
            labels: (B,) 0 real, 1 fake.
            generators: B names; used for fakes only.

        Raises:
            ValueError: shapes or types do not match, or a fake's generator is not among those
                named at construction.
        """
        used, unknown = (flags.to(truth.device) for flags in annotated_fakes(annotation, labels))
        rows = generator_rows(self.names, generators, labels).to(truth.device)
        if len(predicted) != len(truth) or len(truth) != len(rows):
            raise ValueError(
                f"{len(predicted)} predictions, {len(truth)} masks, {len(rows)} labels"
            )
        pixels = category_counts(predicted[used], truth[used])
        evaluated = torch.ones_like(pixels[..., 0])
        evaluated[uncategorized(truth[used]), 1:] = 0
        empty = pixels[..., :2].sum(dim=2) == 0
        new = torch.cat([pixels, torch.stack([torch.ones_like(evaluated), empty], 2)], dim=2)
        new *= evaluated[..., None]
        device = self.counts.device
        self.counts.index_add_(0, rows[used].to(device), new.to(device))
        self.unannotated.index_add_(0, rows.to(device), unknown.to(device).long())

    def compute(self) -> dict[str, dict[str, Any]]:
        """Scores of all images (``"all"``) and of each generator that occurred.

        Returns:
            For each: one dictionary per row of `ROWS` with ``IoU``, ``PixP``, ``PixR``, ``PixF1``,
            ``tp``, ``fp``, ``fn``, ``evaluated_images`` and ``zero_prediction_images`` (no pixel of
            that row predicted); beside them ``evaluated_images``, ``zero_prediction_images`` and
            ``unannotated_images`` of the category-agnostic task.
        """
        result = {"all": _table(self.counts.sum(dim=0), self.unannotated.sum())}
        for index, name in enumerate(self.names):
            counts, unannotated = self.counts[index], self.unannotated[index]
            if counts[0, _COLUMNS.index("evaluated_images")] or unannotated:
                result[name] = _table(counts, unannotated)
        return result


def _table(counts: Tensor, unannotated: Tensor) -> dict[str, Any]:
    """Rows of one generator from (8, 5) counts."""
    table: dict[str, Any] = {}
    for name, row in zip(ROWS, counts.tolist(), strict=True):
        table[name] = {**pixel_scores(*row[:3]), **dict(zip(_COLUMNS, row, strict=True))}
    images = {key: table[AGNOSTIC][key] for key in _COLUMNS[3:]}
    return {**table, **images, "unannotated_images": int(unannotated)}
