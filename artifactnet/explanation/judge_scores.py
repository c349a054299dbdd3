"""What is known of one method of explanation so far: counts, and a few numbers per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from artifactnet.explanation.judge_targets import Target
from artifactnet.inference.inputs import Failure
from artifactnet.metrics.instances import (
    InstanceCounts,
    instance_scores,
    match_regions,
    region_labels,
)
from artifactnet.metrics.localization import mass_inside, pixel_average_precision, pointing_game
from artifactnet.metrics.pixels import PixelCounts, pixel_counts
from artifactnet.metrics.scores import pixel_scores
from artifactnet.types import Annotation, Explanation, Float32Array

MEANS = (
    "pointing_game",
    "mass_inside",
    "average_precision",
    "deletion",
    "insertion",
    "sanity_correlation",
)


_NO_PIXELS = PixelCounts(0, 0, 0, 0, 0, 0)
_NO_INSTANCES = InstanceCounts(0, 0, 0, 0)


@dataclass(slots=True)
class MethodScores:
    """The scores of one method, summed up image by image.

    Attributes:
        threshold: a pixel is called artifact if ``heatmap > threshold``, strictly.
        overlap: share of a region that must lie on an instance, exceeded strictly.
        seconds: that making the maps took.
        undefined: images on which the sanity check says nothing.
    """

    threshold: float
    overlap: float
    seconds: float = 0.0
    undefined: int = 0
    _pixels: PixelCounts = _NO_PIXELS
    _instances: InstanceCounts = _NO_INSTANCES
    _artifact_images: int = 0
    _constant: int = 0
    _values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MEANS})
    _failures: list[Failure] = field(default_factory=list)

    def add(self, target: Target, answer: Explanation | Failure) -> None:
        """Score one map.

        Args:
            target: the image.
            answer: its map at the image's own size, or why there is none.
        """
        if isinstance(answer, Failure):
            self._failures.append(answer)
            return
        heatmap = answer.heatmap
        self._constant += bool(heatmap.min() == heatmap.max())
        self._count(target, heatmap)
        if target.union.any():
            self._artifact_images += 1
            self.note(
                pointing_game=pointing_game(heatmap, target.union),
                mass_inside=mass_inside(heatmap, target.union),
                average_precision=pixel_average_precision(heatmap, target.union),
            )

    def _count(self, target: Target, heatmap: Float32Array) -> None:
        """Pixels and regions of the map above the threshold."""
        plane = torch.from_numpy(np.array(heatmap, dtype=np.float32))[None]
        mask = torch.from_numpy(target.union.astype(np.uint8))[None]
        state = torch.tensor([int(Annotation.MASK)])  # CLEAN counts alike: its mask is empty
        pixels = pixel_counts(plane, mask, state, torch.ones(1), self.threshold)
        self._pixels = PixelCounts(*np.add(self._pixels, pixels).tolist())
        # Compared by torch, as the pixels are, so that both are of one mask.
        regions = region_labels((plane[0] > self.threshold).numpy())
        counts = match_regions(target.instances, regions, self.overlap).counts
        self._instances = InstanceCounts(*np.add(self._instances, counts).tolist())

    def note(self, **values: float | None) -> None:
        """Add one image's value to some of `MEANS`; None adds nothing."""
        for name, value in values.items():
            if value is not None:
                self._values[name].append(value)

    def result(self) -> dict[str, Any]:
        """All scores, ready for JSON; a mean over no images is None.

        Returns:
            - ``IoU``, ``PixP``, ``PixR``, ``PixF1`` and ``tp``, ``fp``, ``fn``, summed over all
              pixels of the ``evaluated_images``, of which ``zero_prediction_images`` have not one
              pixel above the threshold,
            - ``P@t``, ``R@t``, ``F1@t`` and ``instances`` (``tp``, ``fp``, ``fn``): 8-connected
              regions above the threshold against instances, all categories as one,
            - `MEANS`: the first three over ``artifact_images`` (the average precision without
              those that are artifact everywhere: ``average_precision_images``), deletion and
              insertion over ``faithfulness_images``, the sanity check over ``sanity_images``;
              ``sanity_undefined`` more have a constant map, or none after randomisation,
            - ``constant_images``, ``failures`` (``name``, ``reason``), ``seconds_per_image``.
        """
        pixels, instances = self._pixels, self._instances
        regions = {"tp": instances.tp, "fp": instances.fp, "fn": instances.fn}
        tried = pixels.evaluated_images + len(self._failures)
        return {
            **pixel_scores(pixels.tp, pixels.fp, pixels.fn),
            "tp": pixels.tp,
            "fp": pixels.fp,
            "fn": pixels.fn,
            **instance_scores(**regions, t=self.overlap),
            "instances": regions,
            **{name: _mean(self._values[name]) for name in MEANS},
            "evaluated_images": pixels.evaluated_images,
            "artifact_images": self._artifact_images,
            "average_precision_images": len(self._values["average_precision"]),
            "faithfulness_images": len(self._values["deletion"]),
            "sanity_images": len(self._values["sanity_correlation"]),
            "sanity_undefined": self.undefined,
            "zero_prediction_images": pixels.zero_prediction_images,
            "constant_images": self._constant,
            "failures": [{"name": each.path, "reason": each.reason} for each in self._failures],
            "seconds_per_image": self.seconds / tried if tried else None,
        }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
