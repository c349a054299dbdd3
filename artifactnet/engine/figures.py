"""The figures of validation and evaluation, counted batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from artifactnet.metrics.authenticity import AuthenticityMetric
from artifactnet.metrics.pixels import PixelMetric
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import Batch, ModelOutput


class Figures(nn.Module):
    """Authenticity judgment and heatmap quality of whatever passes by.

    Args:
        generators: names of all generators that may occur.
        threshold: fake if the probability is at least this.
        map_threshold: artifact if the heatmap is above this; None for models without one.
        alone: count this process only, even where several train together.
    """

    def __init__(
        self,
        generators: Sequence[str],
        threshold: float,
        map_threshold: float | None,
        alone: bool = False,
    ) -> None:
        super().__init__()
        self.authenticity = AuthenticityMetric(generators, threshold)
        self.pixels = None if map_threshold is None else PixelMetric(map_threshold)
        for metric in (self.authenticity, self.pixels):
            if alone and metric is not None:
                metric.distributed_available_fn = _never

    @classmethod
    def of(cls, model: ArtifactNet, generators: Sequence[str], alone: bool = False) -> Figures:
        """Figures with the thresholds that belong to a model."""
        config = model.config
        map_threshold = config.map_threshold if model.has_attention else None
        return cls(generators, config.threshold, map_threshold, alone)

    def update(self, batch: Batch, output: ModelOutput) -> None:
        """Count one batch."""
        probabilities = output.logit.detach().float().sigmoid()
        names = [record.generator for record in batch.record]
        self.authenticity.update(probabilities, batch.label, names)
        if self.pixels is not None:
            assert output.heatmap is not None
            self.pixels.update(output.heatmap, batch.mask, batch.annotation, batch.label)

    def compute(self) -> dict[str, Any]:
        """Figures so far.

        Returns:
            ``images``; ``authenticity``: scores under ``all`` and per generator under
            ``generators`` (see `metrics.authenticity.scores`); ``heatmap``: scores and counts
            (see `metrics.pixels.PixelMetric`), or None if no annotated fake had a heatmap.
        """
        rows = self.authenticity.compute()
        everything = rows.pop("all")
        pixels = None if self.pixels is None else self.pixels.compute()
        return {
            "images": everything["real"] + everything["fake"],
            "authenticity": {"all": everything, "generators": rows},
            "heatmap": pixels if pixels and pixels["evaluated_images"] else None,
        }

    def reset(self) -> None:
        """Start anew."""
        self.authenticity.reset()
        if self.pixels is not None:
            self.pixels.reset()


def _never() -> bool:
    return False
