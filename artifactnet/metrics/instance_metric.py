"""Weak localisation over a data set: the rules of `artifactnet.metrics.instances`, added up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from artifactnet.metrics.instances import (
    Matches,
    check_threshold,
    instance_labels,
    instance_scores,
    match_boxes,
    match_masks,
    match_points,
    match_regions,
    region_labels,
)
from artifactnet.metrics.regions import LabelMap
from artifactnet.metrics.selection import (
    annotated_fakes,
    generator_names,
    generator_rows,
    uncategorized,
)
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import UInt8Array

_MATCH: dict[str, Callable[[LabelMap, Any, float], Matches]] = {
    "boxes": match_boxes,
    "points": match_points,
    "masks": match_masks,
    "regions": match_regions,
}
_COLUMNS = ("tp", "fp", "fn", "invalid", "evaluated_images", "zero_prediction_images")


def predicted_regions(mask: UInt8Array) -> dict[str, LabelMap]:
    """Regions of a predicted mask, for `InstanceMetric` with ``form="regions"``.

    Args:
        mask: (H, W) uint8 bit field.

    Returns:
        8-connected regions by the label of their category; categories without any are left
        out. Bit 0 (no category) is not looked at.
    """
    planes = {item.label: mask & np.uint8(item.bit) for item in CATEGORIES}
    return {label: region_labels(plane) for label, plane in planes.items() if plane.any()}


class InstanceMetric(Metric):
    """`instance_scores` per category over a data set, overall and per generator.

    Counts are int64 and add up over processes, so images may be dealt out unevenly, even none
    to a process.
    """

    full_state_update = False
    counts: Tensor
    unannotated: Tensor

    def __init__(self, generators: Sequence[str], form: str = "boxes", t: float = 0.5) -> None:
        """Fix the rows of the result and what a predicted region is.

        Args:
            generators: names of all generators that may occur, equal on every process; a
                ``"real"`` among them is ignored.
            form: of the predicted regions of a category: ``boxes`` (N, 4), ``points`` (N, 2),
                ``masks`` (N, H, W), or ``regions``, a `LabelMap`.
            t: share of a region that must lie on an instance, exceeded strictly; in [0, 1].

        Raises:
            ValueError: the form is unknown, or ``t`` is outside [0, 1].
        """
        super().__init__()
        if form not in _MATCH:
            raise ValueError(f"form must be one of {list(_MATCH)}, not {form!r}")
        check_threshold(t)
        self.names = generator_names(generators)
        self.form = form
        self.t = t
        rows = max(1, len(self.names))  # processes cannot exchange a tensor without elements
        zeros = torch.zeros(rows, len(CATEGORIES), len(_COLUMNS), dtype=torch.int64)
        self.add_state("counts", default=zeros, dist_reduce_fx="sum")
        self.add_state("unannotated", default=zeros[:, 0, 0].clone(), dist_reduce_fx="sum")

    def update(
        self,
        truth: Tensor,
        predicted: Sequence[Mapping[str, Any]],
        annotation: Tensor,
        labels: Tensor,
        generators: Sequence[str],
    ) -> None:
        """Add a batch.

        Annotated fakes take part; fakes in the state NONE are left out and counted; real
        images and fakes with artifacts of unknown category only (bit 0) are left out.

        Args:
            truth: (B, H, W) uint8 bit field; all zero for CLEAN.
            predicted: for each image, regions in the form given at construction by the label
                of their category; a category left out means that nothing was predicted.
            annotation: (B,) values of `Annotation`.
            labels: (B,) 0 real, 1 fake.
            generators: B names; looked at for fakes only.

        Raises:
            ValueError: shapes do not match, a category is unknown, or a fake's generator is
                not among those named at construction.
        """
        used, unknown = annotated_fakes(annotation, labels)
        rows = generator_rows(self.names, generators, labels)
        if truth.ndim != 3 or not len(truth) == len(predicted) == len(rows):
            raise ValueError(
                f"need one (H, W) mask, prediction and label per image, got masks "
                f"{tuple(truth.shape)}, {len(predicted)} predictions, {len(rows)} labels"
            )
        used = used & ~uncategorized(truth).to(used.device)
        added = torch.zeros(self.counts.shape, dtype=torch.int64)
        for index in used.nonzero().flatten().tolist():
            added[rows[index]] += self._image(truth[index].cpu().numpy(), predicted[index])
        self.counts += added.to(self.counts.device)
        device = self.unannotated.device
        self.unannotated.index_add_(0, rows.to(device), unknown.to(device).long())

    def _image(self, truth: UInt8Array, predicted: Mapping[str, Any]) -> Tensor:
        """(7, 6) counts of one image."""
        strange = set(predicted).difference(item.label for item in CATEGORIES)
        if strange:
            raise ValueError(f"unknown artifact categories {sorted(strange)}")
        counts = torch.zeros(len(CATEGORIES), len(_COLUMNS), dtype=torch.int64)
        for row, item in enumerate(CATEGORIES):
            instances = instance_labels(truth & np.uint8(item.bit))
            if item.label in predicted:
                matches = _MATCH[self.form](instances, predicted[item.label], self.t)
            else:
                matches = match_boxes(instances, (), self.t)  # nothing is alike in every form
            empty = int(len(matches.predicted) == 0)
            counts[row] = torch.tensor([*matches.counts, 1, empty])
        return counts

    def compute(self) -> dict[str, dict[str, Any]]:
        """Scores of all images (``"all"``) and of each generator that occurred.

        Returns:
            For each: one dictionary per category label with ``P@t``, ``R@t``, ``F1@t`` (the
            threshold in the name), ``tp``, ``fp``, ``fn``, ``invalid``, ``evaluated_images``
            and ``zero_prediction_images``; beside them ``unannotated_images``.
        """
        result = {"all": self._table(self.counts.sum(dim=0), self.unannotated.sum())}
        for index, name in enumerate(self.names):
            counts, unannotated = self.counts[index], self.unannotated[index]
            if counts.any() or unannotated:
                result[name] = self._table(counts, unannotated)
        return result

    def _table(self, counts: Tensor, unannotated: Tensor) -> dict[str, Any]:
        """Rows of one generator from (7, 6) counts."""
        table: dict[str, Any] = {}
        for item, row in zip(CATEGORIES, counts.tolist(), strict=True):
            named = dict(zip(_COLUMNS, row, strict=True))
            table[item.label] = {**instance_scores(row[0], row[1], row[2], self.t), **named}
        return {**table, "unannotated_images": int(unannotated)}
