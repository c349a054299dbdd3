"""Losses of a heatmap head: against annotation (HEIE Sec. 3), and against a teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from artifactnet.config import DistillConfig, HeatmapLossConfig
from artifactnet.data.targets import annotated_target, seen_by_teacher
from artifactnet.losses import heatmap as losses
from artifactnet.models.heads.decoder import HeatmapOutput
from artifactnet.types import Annotation, Batch, ModelOutput, TeacherBatch

# keys of the weights, in the order in which the terms are added up
ANNOTATION_TERMS = ("focal", "laplace", "correlation", "score")
TEACHER_TERMS = ("laplace", "divergence", "correlation", "score", "logit", "feature")


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
        score: (B,) annotated plausibility in [0, 1]; NaN if there is none.
        config: the weights.
    """
    assert output.heatmap is not None
    heatmap = output.heatmap.float()
    target = losses.resize_target(target, (heatmap.shape[1], heatmap.shape[2]))
    annotated = annotation != int(Annotation.NONE)
    terms = _shared_terms(output, target, annotated.float(), score, config)
    if config.focal:
        terms["focal"] = losses.focal_loss(heatmap, target, annotated, config.gamma)
    return {f"heatmap_{k}": (terms[k], getattr(config, k)) for k in ANNOTATION_TERMS if k in terms}


def teacher_losses(
    output: ModelOutput, teacher: TeacherBatch, config: DistillConfig
) -> dict[str, tuple[Tensor, float]]:
    """Each term of distillation and its weight; those of weight 0 are left out.

    With ``confidence`` a pixel's weight is e^-sigma, scaled to a mean of 1 over what the teacher
    saw of each image, as the mapper itself weighs its two levels (HEIE Sec. 3). Where it never
    looked the weight is 0; answers that it did not give (NaN) are passed over.
    """
    assert output.heatmap is not None
    heatmap = output.heatmap.float()
    size = (heatmap.shape[1], heatmap.shape[2])
    target = losses.resize_target(teacher.heatmap, size)
    weight = _weights(losses.resize_target(teacher.sigma, size), config.confidence)
    terms = _shared_terms(output, target, weight, teacher.score, config)
    if config.divergence:
        terms["divergence"] = losses.divergence_loss(heatmap, target, weight)
    if config.logit:
        terms["logit"] = _verdict_loss(output.logit, teacher.logit)
    if config.feature:
        assert teacher.feature is not None  # `attach_teacher_labels` refuses teachers without
        assert output.feature is not None
        terms["feature"] = losses.similarity_loss(output.feature, teacher.feature)
    return {f"teacher_{k}": (terms[k], getattr(config, k)) for k in TEACHER_TERMS if k in terms}


def _shared_terms(
    output: ModelOutput | HeatmapOutput,
    target: Tensor,
    weight: Tensor,
    score: Tensor,
    config: HeatmapLossConfig | DistillConfig,
) -> dict[str, Tensor]:
    """Terms that annotation and teacher have in common; ``weight`` is per image or per pixel."""
    assert output.heatmap is not None
    assert output.score is not None
    terms: dict[str, Tensor] = {}
    if config.laplace:
        levels = [losses.laplace_loss(x.logit, x.log_sigma, target, weight) for x in output.levels]
        terms["laplace"] = torch.stack(levels).mean()
    if config.correlation:
        terms["correlation"] = losses.correlation_loss(output.heatmap.float(), target, weight)
    if config.score:
        terms["score"] = losses.score_loss(output.score, score)
    return terms


def _weights(sigma: Tensor, confidence: bool) -> Tensor:
    """(B, h, w) weights of mean 1 over the pixels that the teacher saw, 0 at the others."""
    seen = seen_by_teacher(sigma).to(sigma.dtype)
    if not confidence:
        return seen
    weight = seen * torch.exp(-sigma)
    mean = weight.sum((1, 2), keepdim=True) / seen.sum((1, 2), keepdim=True).clamp_min(1)
    return weight / mean.clamp_min(torch.finfo(sigma.dtype).tiny)


def _verdict_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with the teacher's probability, over the images that it labelled."""
    known = ~target.isnan()
    probability = torch.where(known, target, 0.0).sigmoid()
    each = F.binary_cross_entropy_with_logits(logit.float(), probability, reduction="none")
    return (each * known).sum() / len(each)
