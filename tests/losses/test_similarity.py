"""The feature term of distillation against plain loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.losses.heatmap import similarity_loss


def features(count, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, generator=generator, dtype=torch.float64)


def by_loops(own, other):
    """Tung & Mori, Eq. 2 to 4, written out."""
    count = len(own)
    rows = []
    for f in (own.tolist(), other.tolist()):
        products = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in f] for x in f]
        norms = [math.sqrt(sum(v * v for v in row)) for row in products]
        rows.append([[v / n for v in row] for row, n in zip(products, norms, strict=True)])
    total = sum((rows[0][i][j] - rows[1][i][j]) ** 2 for i in range(count) for j in range(count))
    return total / count**2


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(1, 7), st.integers(0, 10**6))
def test_equals_the_papers_formula(count, channels, others, seed):
    own, other = features(count, channels, seed), features(count, others, seed + 1)
    found = similarity_loss(own, other).item()
    assert found == pytest.approx(by_loops(own, other), rel=1e-9, abs=1e-12)
    assert 0 <= found <= 4 / count + 1e-12


def test_turning_and_scaling_all_features_changes_nothing():
    own = features(5, 4, 0)
    turn = torch.linalg.qr(features(4, 4, 1))[0]
    assert similarity_loss(7 * own @ turn, own).item() == pytest.approx(0, abs=1e-20)
    assert similarity_loss(own[torch.tensor([1, 0, 2, 3, 4])], own).item() > 1e-3


def test_one_image_relates_to_nothing():
    assert similarity_loss(features(1, 3, 0), features(1, 5, 1)).item() == 0


def test_descent_makes_the_student_relate_images_as_the_teacher_does():
    own, other = features(6, 4, 2).requires_grad_(), features(6, 9, 3)
    optimizer = torch.optim.Adam([own], lr=0.05)
    before = similarity_loss(own, other).item()
    for _ in range(200):
        optimizer.zero_grad()
        similarity_loss(own, other).backward()
        optimizer.step()
    assert similarity_loss(own, other).item() < before / 20


def test_gradient_and_dead_features():
    own = features(3, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: similarity_loss(x, features(3, 4, 5)), [own])
    dead = torch.zeros(3, 2, requires_grad=True)
    value = similarity_loss(dead, features(3, 4, 5).float())
    value.backward()
    assert value.isfinite()
    assert dead.grad.isfinite().all()


def test_full_precision_under_autocast():
    own, other = features(8, 64, 6).float(), features(8, 32, 7).float()
    wanted = similarity_loss(own, other)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(similarity_loss(own, other), wanted)
        assert similarity_loss(own.bfloat16(), other).dtype == torch.float32


@pytest.mark.parametrize(
    ("own", "other"), [((2, 3), (3, 3)), ((2, 3, 1), (2, 3)), ((2,), (2, 1)), ((0, 3), (0, 3))]
)
def test_shapes_that_do_not_go_together_are_refused(own, other):
    with pytest.raises(ValueError, match="feature"):
        similarity_loss(torch.zeros(own), torch.zeros(other))
