"""A detector under training: the losses of a batch, and the figures of a validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric

from artifactnet.config import Config
from artifactnet.evaluation.figures import Figures
from artifactnet.losses.alignment import alignment_loss, artifact_share
from artifactnet.losses.dense import segmentation_loss
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.taxonomy import AGNOSTIC
from artifactnet.training.base import TrainingModule
from artifactnet.training.components import drop_score_notice
from artifactnet.training.heatmap_losses import (
    ANNOTATION_TERMS,
    TEACHER_TERMS,
    annotation_losses,
    teacher_losses,
)
from artifactnet.training.optim import parameter_groups
from artifactnet.types import Annotation, ArtifactNetError, Batch, ModelOutput


class DetectorModule(TrainingModule):
    """ArtifactNet under training: a weighted sum of the losses that the config asks for.

    BCE of the verdict and alignment of its attention (X-AIGD Sec. 6.1), cross-entropy of the
    segmentation heads (Sec. 5, B.2), and losses of the heatmap head against annotation (HEIE
    Sec. 3) or a teacher. Images without annotation take part in BCE and distillation alone; real
    images and fakes annotated as clean are aligned to an empty map and are background.

    Args:
        model: the network.
        config: the run.
        generators: names of the generators in the validation images.
        class_weights: nine weights of the segmentation loss, see `losses.dense`.
    """

    model: ArtifactNet
    class_weights: Tensor

    def __init__(
        self,
        model: ArtifactNet,
        config: Config,
        generators: Sequence[str],
        class_weights: Sequence[float] = (1.0,) * 9,
    ) -> None:
        super().__init__(model, config)
        self.aligned = config.loss.alignment.weight > 0
        self.segmented = config.loss.segmentation.weight > 0
        self._attention_checked = False
        self.register_buffer("class_weights", torch.tensor(class_weights), persistent=False)
        self.figures = Figures(model, generators)
        names = ["loss", "bce", *(["segmentation"] if self.segmented else [])]
        names += ["alignment"] if self.aligned else []
        means = {name: MeanMetric() for name in [*names, *_heatmap_names(config)]}
        self.means: dict[str, MeanMetric] = nn.ModuleDict(means)  # type: ignore[assignment]

    def losses(
        self, batch: Batch, *, attention: bool, segmentation: bool, create_graph: bool = False
    ) -> tuple[dict[str, Tensor], ModelOutput]:
        """Loss parts of a batch (their weighted sum under ``loss``) and the model's output."""
        output = self.model(
            batch.image,
            attention=attention,
            segmentation=segmentation,
            heatmap=self.model.has_heatmap,
            create_graph=create_graph,
        )
        weights = self.config.loss
        bce = F.binary_cross_entropy_with_logits(output.logit.float(), batch.label)
        parts = {"loss": weights.bce * bce, "bce": bce}
        if self.segmented:
            heads = {"segmentation": (output.segmentation, weights.segmentation.weight)}
            if output.auxiliary is not None:
                heads["auxiliary"] = (output.auxiliary, weights.segmentation.auxiliary_weight)
            for name, (logits, weight) in heads.items():
                truth = (batch.mask, batch.annotation)
                parts[name] = segmentation_loss(logits, *truth, self.class_weights)
                parts["loss"] = parts["loss"] + weight * parts[name]
        if self.model.has_heatmap:
            terms = annotation_losses(output, batch, weights.heatmap)
            if batch.teacher is not None:
                terms |= teacher_losses(output, batch.teacher, self.config.distill)
            for name, (term, weight) in terms.items():
                parts[name] = term
                parts["loss"] = parts["loss"] + weight * term
        if self.aligned and attention:
            heatmap = output.heatmap.float()
            share = artifact_share(batch.mask, (heatmap.shape[1], heatmap.shape[2]))
            annotated = batch.annotation != int(Annotation.NONE)
            benign_weight = weights.alignment.benign_weight
            parts["alignment"] = alignment_loss(heatmap, share, annotated, benign_weight)
            # lazy regularisation (Karras et al. 2020, Appendix B): k times as strong, as rarely
            strength = weights.alignment.every if create_graph else 1
            term = strength * weights.alignment.weight * parts["alignment"]
            parts["loss"] = parts["loss"] + term
        return parts, output

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch.

        Raises:
            ArtifactNetError: the loss is not finite (on any process: all of them stop), or the
                attention cannot be aligned (before the first step).
        """
        aligned = self.aligned and self.global_step % self.config.loss.alignment.every == 0
        if aligned and not self._attention_checked:
            self.model.check_attention(batch.image)
            self._attention_checked = True
        terms, _ = self.losses(
            batch, attention=aligned, segmentation=self.segmented, create_graph=aligned
        )
        loss = self.finish_step(terms, batch)
        if self.scored:
            drop_score_notice(self.model)
        return loss

    def trains_score(self, batch: Batch) -> bool:
        """Whether a loss of this batch reaches the score."""
        if not self.model.has_heatmap:
            return False
        given = self.config.loss.heatmap.score > 0 and not bool(batch.score.isnan().all())
        if batch.teacher is None or not self.config.distill.score:
            return given
        return given or not bool(batch.teacher.score.isnan().all())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch into the validation figures."""
        model = self.model
        parts, output = self.losses(
            batch, attention=model.has_attention, segmentation=model.has_segmentation
        )
        for name, value in parts.items():
            self.means[name].update(value, weight=len(batch.record))
        self.figures.update(batch, output)

    def validation_figures(self) -> dict[str, float]:
        """Figures of the validation that has just run, over all processes; starts them anew.

        Returns:
            ``loss`` and its parts, ``balanced_accuracy``; ``map_iou`` if the model has a map;
            ``mask_iou`` (of any category) and ``joint``, its mean with the balanced accuracy,
            if it has a segmentation head; ``teacher_cc`` if a teacher labelled the images.
        """
        figures = self.figures.compute()
        values = {name: float(mean.compute()) for name, mean in self.means.items()}
        values["balanced_accuracy"] = figures["authenticity"]["all"]["balanced_accuracy"]
        if figures["heatmap"] is not None:
            values["map_iou"] = figures["heatmap"]["IoU"]
        if figures["masks"] is not None:
            values["mask_iou"] = figures["masks"]["all"][AGNOSTIC]["IoU"]
            values["joint"] = (values["balanced_accuracy"] + values["mask_iou"]) / 2
        teacher = figures["teacher"]
        if teacher is not None and teacher["CC"] is not None:
            values["teacher_cc"] = teacher["CC"]
        elif self.config.train.monitor == "teacher_cc":
            raise ArtifactNetError(
                "train.monitor=teacher_cc is not available: all maps of the teacher on the "
                "validation images are constant"
            )
        self.figures.reset()
        for mean in self.means.values():
            mean.reset()
        return values

    def save_model(self, path: Path, facts: dict[str, Any]) -> None:
        """Write the detector into one file, in the main process alone."""
        if self.trainer.is_global_zero:
            save_checkpoint(self.model, path, facts)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `artifactnet.training.optim.parameter_groups`."""
        return parameter_groups(self.model, self.config.optim)


def _heatmap_names(config: Config) -> list[str]:
    """Names of the heatmap head's losses that the config asks for."""
    if config.model.heatmap.head == "none":
        return []
    names = [f"heatmap_{k}" for k in ANNOTATION_TERMS if getattr(config.loss.heatmap, k)]
    if config.distill.teacher is not None:
        names += [f"teacher_{k}" for k in TEACHER_TERMS if getattr(config.distill, k)]
    return names
