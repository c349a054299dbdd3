"""The figures of validation and evaluation, counted batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

from artifactnet.data.targets import annotated_target, seen_by_teacher
from artifactnet.metrics.alone import count_alone
from artifactnet.metrics.artifact_ratio import ArtifactRatioMetric
from artifactnet.metrics.authenticity import AuthenticityMetric
from artifactnet.metrics.category_presence import PresenceMetric, categories_present
from artifactnet.metrics.correlation import ScoreCorrelationMetric
from artifactnet.metrics.pixels import PixelMetric
from artifactnet.metrics.saliency import SaliencyMetric, TeacherAgreementMetric
from artifactnet.metrics.segmentation import SegmentationMetric
from artifactnet.metrics.verdicts import VerdictMetric
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.heads.segmentation import bit_field, probabilities
from artifactnet.types import Batch, ModelOutput


class Figures(nn.Module):
    """Authenticity, heatmap and segmentation quality over all batches.

    Args:
        model: whose outputs are counted, with its thresholds.
        generators: names of all generators that may occur.
        alone: count this process only, even where several train together.
    """

    def __init__(self, model: ArtifactNet, generators: Sequence[str], alone: bool = False) -> None:
        super().__init__()
        config = model.config
        self._map_threshold = config.map_threshold
        self._exclusive = config.segmentation.labels == "softmax"
        self._known = model.known_categories
        self.authenticity = AuthenticityMetric(generators, config.threshold)
        limits = config.limits
        self.verdicts = None if limits is None else VerdictMetric(generators, limits)
        mapped = model.has_attention or model.has_heatmap
        self.pixels = PixelMetric(generators, config.map_threshold) if mapped else None
        self.saliency = SaliencyMetric() if model.has_heatmap else None
        self.scores = ScoreCorrelationMetric() if model.has_score else None
        self.teacher = TeacherAgreementMetric() if model.has_heatmap else None
        self.masks = SegmentationMetric(generators) if model.has_segmentation else None
        self.presence = PresenceMetric() if model.has_segmentation else None
        self.by_ratio = ArtifactRatioMetric(threshold=config.threshold)
        for metric in self._all():
            if alone:
                count_alone(metric)

    def _all(self) -> list[Metric]:
        every = (
            self.authenticity,
            self.verdicts,
            self.pixels,
            self.masks,
            self.presence,
            self.by_ratio,
        )
        heatmap_head = (self.saliency, self.scores, self.teacher)
        return [metric for metric in (*every, *heatmap_head) if metric is not None]

    def update(self, batch: Batch, output: ModelOutput) -> None:
        """Count one batch."""
        probabilities = output.logit.detach().float().sigmoid()
        names = [record.generator for record in batch.record]
        self.authenticity.update(probabilities, batch.label, names)
        if self.verdicts is not None:
            self.verdicts.update(probabilities, batch.label, names)
        truth = (batch.mask, batch.annotation, batch.label)
        self.by_ratio.update(probabilities, *truth)
        if self.pixels is not None:
            assert output.heatmap is not None
            self.pixels.update(output.heatmap, *truth, names)
        if self.masks is not None and self.presence is not None:
            assert output.segmentation is not None
            predicted = self._predicted(output.segmentation, batch.mask.shape[1:])
            self.masks.update(predicted, *truth, names)
            self.presence.update(categories_present(predicted), *truth)
        self._update_heatmap_head(batch, output)

    def _update_heatmap_head(self, batch: Batch, output: ModelOutput) -> None:
        """What the heatmap head predicts, against annotation and teacher."""
        if self.saliency is None or self.teacher is None:
            return
        assert output.heatmap is not None
        self.saliency.update(output.heatmap, annotated_target(batch), batch.annotation)
        if self.scores is not None:
            assert output.score is not None
            self.scores.update(output.score, batch.score)
        if batch.teacher is None:
            self.teacher.update(output.heatmap, None)
        else:
            seen = seen_by_teacher(batch.teacher.sigma)
            self.teacher.update(output.heatmap, batch.teacher.heatmap, seen, batch.label)

    def _predicted(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """(B, H, W) bit field of the categories found, at the masks' size."""
        found = probabilities(logits.detach(), size)
        return bit_field(*found, self._map_threshold, self._exclusive, self._known)

    def compute(self) -> dict[str, Any]:
        """Figures so far.

        Returns:
            ``images``; ``authenticity``: scores under ``all`` and, per generator, ``generators``
            (see `metrics.confusion.verdict_scores`); ``verdicts``: shares of fake, uncertain and
            real, see `metrics.verdicts.VerdictMetric`, None of a model without two limits;
            ``heatmap``: see `metrics.pixels.PixelMetric`,
            and ``heatmap_generators``, the same of each generator with annotated fakes;
            ``masks``: per generator and ``all``, see `metrics.segmentation.SegmentationMetric`;
            ``presence``: F1 of "the image has category c" (Table 9); ``by_artifact_ratio``: how
            many annotated fakes were called fake, by their share of artifact pixels (Fig. 3);
            ``saliency``, ``scores`` (``PLCC``, ``SRCC``) and ``teacher`` (``CC``, ``MSE``) of the
            heatmap head, with ``images``, see `metrics.saliency`. Each that has a head or map of
            its own is None if the model lacks it or no image has a ground truth for it.
        """
        rows = self.authenticity.compute()
        everything = rows.pop("all")
        maps = {} if self.pixels is None else self.pixels.compute()
        pixels = maps.pop("all", None)
        masks = None if self.masks is None else self.masks.compute()
        masks = masks if masks and masks["all"]["evaluated_images"] else None
        mapped = pixels is not None and bool(pixels["evaluated_images"])
        return {
            "images": everything["real"] + everything["fake"],
            "authenticity": {"all": everything, "generators": rows},
            "verdicts": None if self.verdicts is None else self.verdicts.compute(),
            "heatmap": pixels if mapped else None,
            "heatmap_generators": maps if mapped else None,
            "masks": masks,
            "presence": self.presence.compute() if masks and self.presence is not None else None,
            "by_artifact_ratio": self.by_ratio.compute(),
            "saliency": _of_images(self.saliency),
            "scores": _of_images(self.scores),
            "teacher": _of_images(self.teacher),
        }

    def reset(self) -> None:
        """Start anew."""
        for metric in self._all():
            metric.reset()


def _of_images(metric: Metric | None) -> dict[str, Any] | None:
    """What a metric found, or None if it met no image."""
    found: dict[str, Any] | None = None if metric is None else metric.compute()
    return found if found and found["images"] else None
