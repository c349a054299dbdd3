"""Losses of a heatmap head: against annotation (HEIE Sec. 3), and against a teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from artifactnet.config import DistillConfig, HeatmapLossConfig
from artifactnet.data.targets import annotated_target, seen_by_teacher
from artifactnet.losses import heatmap as losses
from artifactnet.losses.heatmap import similarity_loss
from artifactnet.models.heads.decoder import HeatmapOutput
from artifactnet.types import Annotation, Batch, ModelOutput, TeacherBatch


def annotation_losses(
    output: ModelOutput, batch: Batch, config: HeatmapLossConfig
) -> dict[str, tuple[Tensor, float]]:
    """`annotation_terms` of a collated batch."""
    return annotation_terms(output, annotated_target(batch), batch.annotation, batch.score, config)


def annotation_terms(
    output: ModelOutput | HeatmapOutput,
    target: Tensor,
    annotation: Tensor,
    score: Tensor,
    config: HeatmapLossConfig,
) -> dict[str, tuple[Tensor, float]]:
    """Each term and its weight; those of weight 0 are left out.

    Images that nobody annotated take part in none of them; the score's term takes every image
    with a score. An image without artifacts asks for no correlation.

    Args:
        output: with heatmap and score.
        target: (B, H, W) annotated heatmap in [0, 1], of any size.
        annotation: (B,) values of `Annotation`.
        score: (B,) annotated plausibility in [0, 1]; NaN where nobody gave one.
        config: the weights.
    """
    assert output.heatmap is not None
    assert output.score is not None
    heatmap = output.heatmap.float()
    target = losses.resize_target(target, (heatmap.shape[1], heatmap.shape[2]))
    annotated = annotation != int(Annotation.NONE)
    known = annotated.float()
    found: dict[str, tuple[Tensor, float]] = {}
    if config.focal:
        term = losses.focal_loss(heatmap, target, annotated, config.gamma)
        found["heatmap_focal"] = term, config.focal
    if config.laplace:
        terms = [losses.laplace_loss(x.logit, x.log_sigma, target, known) for x in output.levels]
        found["heatmap_laplace"] = torch.stack(terms).mean(), config.laplace
    if config.correlation:
        term = losses.correlation_loss(heatmap, target, known)
        found["heatmap_correlation"] = term, config.correlation
    if config.score:
        found["heatmap_score"] = losses.score_loss(output.score, score), config.score
    return found


def teacher_losses(
    output: ModelOutput, teacher: TeacherBatch, config: DistillConfig
) -> dict[str, tuple[Tensor, float]]:
    """Each term of distillation and its weight; those of weight 0 are left out.

    With ``confidence`` a pixel's weight is e^-sigma, scaled to a mean of 1 over what the teacher
    saw of each image, as the mapper itself weighs its two levels (HEIE Sec. 3). Where it never
    looked the weight is 0; answers that it did not give (NaN) are passed over.
    """
    assert output.heatmap is not None
    assert output.score is not None
    heatmap = output.heatmap.float()
    size = (heatmap.shape[1], heatmap.shape[2])
    target = losses.resize_target(teacher.heatmap, size)
    weight = _weights(losses.resize_target(teacher.sigma, size), config.confidence)
    found: dict[str, tuple[Tensor, float]] = {}
    if config.laplace:
        terms = [losses.laplace_loss(x.logit, x.log_sigma, target, weight) for x in output.levels]
        found["teacher_laplace"] = torch.stack(terms).mean(), config.laplace
    if config.divergence:
        term = losses.divergence_loss(heatmap, target, weight)
        found["teacher_divergence"] = term, config.divergence
    if config.correlation:
        term = losses.correlation_loss(heatmap, target, weight)
        found["teacher_correlation"] = term, config.correlation
    if config.score:
        found["teacher_score"] = losses.score_loss(output.score, teacher.score), config.score
    if config.logit:
        found["teacher_logit"] = _verdict_loss(output.logit, teacher.logit), config.logit
    if config.feature:
        found["teacher_feature"] = _feature_loss(output, teacher), config.feature
    return found


def _weights(sigma: Tensor, confidence: bool) -> Tensor:
    """(B, h, w) weights of mean 1 over the pixels that the teacher saw, 0 at the others."""
    seen = seen_by_teacher(sigma).to(sigma.dtype)
    if not confidence:
        return seen
    weight = seen * torch.exp(-sigma)
    mean = weight.sum((1, 2), keepdim=True) / seen.sum((1, 2), keepdim=True).clamp_min(1)
    return weight / mean.clamp_min(torch.finfo(sigma.dtype).tiny)


def _feature_loss(output: ModelOutput, teacher: TeacherBatch) -> Tensor:
    assert teacher.feature is not None  # `distill.teach` refuses teachers without
    assert output.feature is not None
    return similarity_loss(output.feature, teacher.feature)


def _verdict_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with the teacher's probability, over the images that it judged."""
    known = ~target.isnan()
    probability = torch.where(known, target, 0.0).sigmoid()
    each = F.binary_cross_entropy_with_logits(logit.float(), probability, reduction="none")
    return (each * known).sum() / len(each)
