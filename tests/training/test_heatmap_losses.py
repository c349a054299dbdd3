"""Which images and pixels a heatmap head learns from, and how strongly."""

import math

import numpy as np
import pytest
import torch

from artifactnet.config import DistillConfig, HeatmapLossConfig
from artifactnet.losses.heatmap import similarity_loss
from artifactnet.training.heatmap_losses import annotation_losses, teacher_losses
from artifactnet.types import (
    UNSEEN_SIGMA,
    Annotation,
    Batch,
    HeatmapLevel,
    ModelOutput,
    Record,
    TeacherBatch,
)

TERMS = ("laplace", "divergence", "correlation", "score", "logit")
STATES = (Annotation.MASK, Annotation.CLEAN, Annotation.NONE)


def batch(states=STATES, scores=(0.25, 1.0, math.nan)):
    torch.manual_seed(0)
    count = len(states)
    mask = torch.zeros(count, 8, 8, dtype=torch.uint8)
    mask[0, 2:6, 2:6] = 4
    return Batch(
        image=torch.zeros(count, 3, 8, 8),
        label=torch.ones(count),
        annotation=torch.tensor([int(s) for s in states]),
        mask=mask,
        heatmap=torch.zeros(count, 8, 8),
        score=torch.tensor(scores),
        record=[Record(str(k), 1, "g", s, str(k)) for k, s in enumerate(states)],
    )


def output(count=3, size=8, seed=1):
    torch.manual_seed(seed)
    logit = torch.randn(count, size, size, requires_grad=True)
    log_sigma = (0.3 * torch.randn(count, size, size)).requires_grad_()
    return ModelOutput(
        logit=torch.randn(count, requires_grad=True),
        heatmap=logit.sigmoid(),
        sigma=log_sigma.exp(),
        score=torch.rand(count, requires_grad=True),
        levels=(HeatmapLevel(logit, log_sigma),),
    )


def test_every_term_has_its_weight_and_zero_weights_cost_nothing():
    config = HeatmapLossConfig(focal=1.0, laplace=2.0, correlation=3.0, score=4.0)
    found = annotation_losses(output(), batch(), config)
    wanted = zip(("focal", "laplace", "correlation", "score"), (1.0, 2.0, 3.0, 4.0), strict=True)
    assert {k: weight for k, (_, weight) in found.items()} == {f"heatmap_{n}": w for n, w in wanted}
    assert annotation_losses(output(), batch(), HeatmapLossConfig()) == {}


@pytest.mark.parametrize("term", ["focal", "laplace", "correlation"])
def test_images_that_nobody_annotated_teach_nothing(term):
    config = HeatmapLossConfig(**{term: 1.0})
    found = output()
    ((value, _),) = annotation_losses(found, batch(), config).values()
    value.backward()
    gradient = found.levels[0].logit.grad
    assert gradient[0].any()
    assert gradient[1].any() == (term != "correlation")  # an empty map has no correlation
    assert not gradient[2].any()


def test_score_is_learned_where_there_is_one():
    found = output()
    ((value, _),) = annotation_losses(found, batch(), HeatmapLossConfig(score=1.0)).values()
    given = found.score.detach().numpy().astype(np.float64)
    assert value.item() == pytest.approx(((given[0] - 0.25) ** 2 + (given[1] - 1) ** 2) / 3)
    value.backward()
    assert found.score.grad[2] == 0


def teacher(count=3, sigma=None, logit=(2.0, -1.0, math.nan)):
    torch.manual_seed(3)
    return TeacherBatch(
        heatmap=torch.rand(count, 8, 8),
        sigma=torch.ones(count, 8, 8) if sigma is None else sigma,
        score=torch.tensor([0.1, math.nan, math.nan]),
        logit=torch.tensor(logit),
    )


def only(**weights):
    nothing = dict.fromkeys(TERMS, 0.0)
    return DistillConfig(**(nothing | weights))


@pytest.mark.parametrize("size", [8, 4])  # a student as fine as the teacher, or coarser
def test_all_terms_of_distillation(size):
    found = teacher_losses(output(size=size), teacher(), DistillConfig())
    assert set(found) == {f"teacher_{name}" for name in TERMS}  # features only where asked for
    assert all(torch.isfinite(value) for value, _ in found.values())
    assert teacher_losses(output(), teacher(), only()) == {}


def test_the_teachers_verdict_by_hand():
    student = output()
    ((value, _),) = teacher_losses(student, teacher(), only(logit=1.0)).values()
    total = 0.0
    for own, other in zip(student.logit[:2].tolist(), (2.0, -1.0), strict=True):
        wanted, p = 1 / (1 + math.exp(-other)), 1 / (1 + math.exp(-own))
        total -= wanted * math.log(p) + (1 - wanted) * math.log(1 - p)
    assert value.item() == pytest.approx(total / 3, rel=1e-5)
    value.backward()
    assert student.logit.grad[2] == 0


def test_features_are_compared_where_that_is_asked():
    student, asked = output(), teacher()
    student.feature = torch.randn(3, 4, requires_grad=True)
    asked.feature = torch.randn(3, 7)
    ((value, weight),) = teacher_losses(student, asked, only(feature=2.0)).values()
    assert (value.item(), weight) == (similarity_loss(student.feature, asked.feature).item(), 2.0)
    value.backward()
    assert student.feature.grad.abs().sum() > 0


def test_pixels_weigh_by_the_teachers_confidence():
    sigma = torch.full((3, 8, 8), 0.1)
    sigma[:, :, 4:] = 3.0
    gradients = {}
    for confidence in (True, False):
        student = output()
        config = only(laplace=1.0)
        config.confidence = confidence
        ((value, _),) = teacher_losses(student, teacher(sigma=sigma), config).values()
        value.backward()
        gradients[confidence] = student.levels[0].logit.grad.abs()
    ratio = gradients[True] / gradients[False]
    weight = torch.exp(-sigma[0])
    torch.testing.assert_close(ratio[0], weight / weight.mean(), rtol=1e-4, atol=1e-4)


def test_what_the_teacher_never_saw_teaches_nothing():
    sigma = torch.full((3, 8, 8), 0.5)
    sigma[0], sigma[1, :, 4:] = UNSEEN_SIGMA, UNSEEN_SIGMA
    for confidence in (True, False):
        student = output()
        config = only(laplace=1.0, divergence=1.0, correlation=1.0)
        config.confidence = confidence
        terms = teacher_losses(student, teacher(sigma=sigma), config)
        sum(value for value, _ in terms.values()).backward()
        gradient = student.levels[0].logit.grad
        assert torch.isfinite(gradient).all()
        assert not gradient[0].any()
        assert not gradient[1, :, 4:].any()
        assert gradient[1, :, :4].all()
        assert gradient[2].all()
