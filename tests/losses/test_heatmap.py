"""Heatmap and score losses against plain loops in float64, and their corner cases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.losses.heatmap import (
    LOG_SIGMA_LIMITS,
    correlation_loss,
    divergence_loss,
    focal_loss,
    laplace_loss,
    resize_target,
    score_loss,
    similarity_loss,
)

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 4))


def example(shape, seed=0, dtype=torch.float64):
    """Prediction and target in (0, 1); the first target is half empty."""
    generator = torch.Generator().manual_seed(seed)
    prediction = 0.02 + 0.96 * torch.rand(shape, generator=generator, dtype=dtype)
    target = torch.rand(shape, generator=generator, dtype=dtype)
    target[0][torch.rand(shape[1:], generator=generator) < 0.5] = 0
    return prediction, target


def weights(shape, per_pixel, seed):
    generator = torch.Generator().manual_seed(seed + 1)
    size = shape if per_pixel else shape[:1]
    found = torch.rand(size, generator=generator, dtype=torch.float64)
    found[torch.rand(size, generator=generator) < 0.3] = 0
    return found


def pixels(prediction, target, weight):
    """Per image: a list of (prediction, target, weight) of its pixels."""
    for b in range(len(prediction)):
        w = weight[b].expand(prediction[b].shape).flatten().tolist()
        yield list(
            zip(prediction[b].flatten().tolist(), target[b].flatten().tolist(), w, strict=True)
        )


def focal_by_loops(heatmap, target, annotated, gamma):
    total = 0.0
    for image in pixels(heatmap, target, annotated.double()):
        each = [w * abs(t - p) ** gamma * -(t * math.log(p) + (1 - t) * math.log(1 - p))
                for p, t, w in image]  # fmt: skip
        total += sum(each) / len(each)
    return total / len(heatmap)


def divergence_by_loops(heatmap, target, weight):
    total = 0.0
    for image in pixels(heatmap, target, weight):
        if not any(w * t > 0 for _, t, w in image):
            continue
        p = [w * (p + 1e-6) for p, _, w in image]
        q = [w * (t + 1e-6) for _, t, w in image]
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        divergence = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True) if b > 0)
        total += divergence * sum(w for _, _, w in image) / len(image)
    return total / len(heatmap)


def correlation_by_loops(heatmap, target, weight):
    total = 0.0
    for image in pixels(heatmap, target, weight):
        seen = [(p, t, w) for p, t, w in image if w > 0]
        if len({t for _, t, _ in seen}) < 2:
            continue
        mass = sum(w for _, _, w in seen)
        mean_p = sum(w * p for p, _, w in seen) / mass
        mean_t = sum(w * t for _, t, w in seen) / mass
        both = sum(w * (p - mean_p) * (t - mean_t) for p, t, w in seen) / mass
        var_p = sum(w * (p - mean_p) ** 2 for p, _, w in seen) / mass + 1e-8
        var_t = sum(w * (t - mean_t) ** 2 for _, t, w in seen) / mass
        total += (1 - both / math.sqrt(var_p * var_t)) * mass / len(image)
    return total / len(heatmap)


@settings(deadline=None)
@given(shape=SHAPES, gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), seed=st.integers(0, 999))
def test_focal_equals_loops(shape, gamma, seed):
    heatmap, target = example(shape, seed)
    annotated = weights(shape, False, seed) > 0
    got = focal_loss(heatmap, target, annotated, gamma)
    expected = focal_by_loops(heatmap, target, annotated, gamma)
    assert math.isclose(got.item(), expected, rel_tol=1e-9, abs_tol=1e-12)


def test_focal_with_gamma_zero_is_cross_entropy():
    heatmap, target = example((3, 4, 4))
    everyone = torch.ones(3, dtype=torch.bool)
    plain = torch.nn.functional.binary_cross_entropy(heatmap, target)
    torch.testing.assert_close(focal_loss(heatmap, target, everyone, 0.0), plain)


@settings(deadline=None)
@given(shape=SHAPES, per_pixel=st.booleans(), seed=st.integers(0, 999))
def test_laplace_equals_loops(shape, per_pixel, seed):
    heatmap, target = example(shape, seed)
    logit = heatmap.logit() * 3
    log_sigma = 6 * heatmap.flip(0) - 3
    weight = weights(shape, per_pixel, seed)
    total = 0.0
    heat, spreads = pixels(logit, target, weight), pixels(log_sigma, target, weight)
    for image, spread in zip(heat, spreads, strict=True):
        for (z, t, w), (s, _, _) in zip(image, spread, strict=True):
            total += w * (math.sqrt(2) / math.exp(s) * abs(1 / (1 + math.exp(-z)) - t) + s)
    got = laplace_loss(logit, log_sigma, target, weight)
    assert math.isclose(got.item(), total / logit.numel(), rel_tol=1e-9, abs_tol=1e-12)


def test_the_best_sigma_is_the_standard_deviation_and_has_a_floor():
    logit, target = torch.zeros(1, 1, 1), torch.full((1, 1, 1), 0.8)
    steps = torch.linspace(-3, 1, 2001)
    one = torch.ones(1)
    losses = [laplace_loss(logit, s.reshape(1, 1, 1), target, one) for s in steps]
    best = steps[int(torch.stack(losses).argmin())].exp()
    assert best.item() == pytest.approx(math.sqrt(2) * 0.3, rel=5e-3)
    far = [torch.full((1, 1, 1), x) for x in (-1000.0, LOG_SIGMA_LIMITS[0])]
    exact = torch.full((1, 1, 1), 0.5)
    low, floor = (laplace_loss(logit, x, exact, one).item() for x in far)
    assert low == floor == LOG_SIGMA_LIMITS[0]


@settings(deadline=None)
@given(shape=SHAPES, per_pixel=st.booleans(), seed=st.integers(0, 999))
def test_divergence_and_correlation_equal_loops(shape, per_pixel, seed):
    heatmap, target = example(shape, seed)
    target[-1] = 0 if len(target) > 1 else target[-1]
    weight = weights(shape, per_pixel, seed)
    references = (divergence_by_loops, correlation_by_loops)
    for loss, loops in zip((divergence_loss, correlation_loss), references, strict=True):
        expected = loops(heatmap, target, weight)
        got = loss(heatmap, target, weight).item()
        assert math.isclose(got, expected, rel_tol=1e-8, abs_tol=1e-10), loss.__name__


def test_empty_and_constant_targets_contribute_nothing():
    heatmap, target = example((2, 3, 3))
    one = torch.ones(2, dtype=torch.float64)
    target[1] = 0
    for loss in (divergence_loss, correlation_loss):
        alone = loss(heatmap[:1], target[:1], one[:1]) / 2
        torch.testing.assert_close(loss(heatmap, target, one), alone)
    target[1] = 0.7
    alone = correlation_loss(heatmap[:1], target[:1], one[:1]) / 2
    torch.testing.assert_close(correlation_loss(heatmap, target, one), alone)
    constant = torch.full_like(heatmap, 0.2)
    assert correlation_loss(constant[:1], target[:1], one[:1]).item() == pytest.approx(1)


CORNERS = [0.0, 1.0, 0.3, 1e-30, "one pixel", "faint pixel"]


def corner(value, dtype):
    maps = torch.zeros(2, 3, 3, dtype=dtype)
    if isinstance(value, str):
        maps[:, 1, 1] = 1.0 if value == "one pixel" else 1e-30  # its square is 0
        return maps
    return maps + value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("predicted", CORNERS)
@pytest.mark.parametrize("truth", CORNERS)
def test_corner_cases_have_finite_losses_and_gradients(predicted, truth, dtype):
    target, one = corner(truth, torch.float32), torch.ones(2)
    everyone = one.bool()
    for weight in (one, torch.zeros(2), torch.zeros(2, 3, 3), corner("one pixel", torch.float32)):
        for loss in (
            lambda h: focal_loss(h, target, everyone, 0.5),
            lambda h, w=weight: divergence_loss(h, target, w),
            lambda h, w=weight: correlation_loss(h, target, w),
            lambda h, w=weight: laplace_loss(200 * h - 100, 50 * h - 25, target, w),
        ):
            heatmap = corner(predicted, dtype).requires_grad_()
            found = loss(heatmap)
            assert found.dtype == torch.float32
            found.backward()
            assert found.isfinite()
            assert heatmap.grad is not None
            assert heatmap.grad.isfinite().all()


def test_gradients():
    heatmap, target = example((2, 2, 3), seed=4)
    weight = weights((2, 2, 3), True, 1) + 0.1
    logit, log_sigma = heatmap.logit(), 2 * heatmap.flip(1) - 1
    for x in (heatmap, logit, log_sigma):
        x.requires_grad_()
    everyone = torch.ones(2, dtype=torch.bool)
    check = torch.autograd.gradcheck
    assert check(lambda h: focal_loss(h, target, everyone, 2.0), heatmap)
    assert check(lambda h: focal_loss(h, target, everyone, 0.5), heatmap)
    assert check(lambda h: divergence_loss(h, target, weight), heatmap)
    assert check(lambda h: correlation_loss(h, target, weight), heatmap)
    logit = logit.detach().requires_grad_()
    log_sigma = log_sigma.detach().requires_grad_()
    assert check(lambda z, s: laplace_loss(z, s, target, weight), (logit, log_sigma))
    scores = torch.tensor([0.2, 0.7], dtype=torch.float64)
    assert check(lambda s: score_loss(s, scores.flip(0)), scores.clone().requires_grad_())


def test_score_loss_ignores_missing_scores():
    score = torch.tensor([0.2, 0.9, 0.5], requires_grad=True)
    target = torch.tensor([0.6, math.nan, 0.5])
    loss = score_loss(score, target)
    assert loss.item() == pytest.approx(0.16 / 3)
    loss.backward()
    np.testing.assert_allclose(score.grad, [-0.8 / 3, 0, 0], atol=1e-6)
    score.grad = None
    nothing = score_loss(score, torch.full((3,), math.nan))
    nothing.backward()
    assert nothing.item() == 0
    assert not score.grad.any()


def test_mean_over_processes_is_the_joint_batch():
    heatmap, target = example((4, 3, 3), seed=2)
    weight = torch.tensor([1.0, 0.0, 1.0, 0.5], dtype=torch.float64)
    score, scores = heatmap[:, 0, 0], torch.tensor([0.1, math.nan, 0.2, math.nan]).double()
    for loss in (
        lambda s: focal_loss(heatmap[s], target[s], weight[s] > 0, 2.0),
        lambda s: divergence_loss(heatmap[s], target[s], weight[s]),
        lambda s: correlation_loss(heatmap[s], target[s], weight[s]),
        lambda s: laplace_loss(heatmap[s], heatmap[s], target[s], weight[s]),
        lambda s: score_loss(score[s], scores[s]),
    ):
        parts = loss(slice(0, 4, 2)) + loss(slice(1, 4, 2))
        torch.testing.assert_close(parts / 2, loss(slice(None)), rtol=1e-12, atol=0)


def test_autocast_changes_nothing():
    heatmap, target = example((2, 4, 4), dtype=torch.float32)
    one = torch.ones(2)

    def every():
        maps = [divergence_loss, correlation_loss, lambda h, t, w: laplace_loss(h, h, t, w)]
        losses = [loss(heatmap, target, one) for loss in maps]
        losses += [focal_loss(heatmap, target, one.bool(), 2.0)]
        losses += [score_loss(heatmap[:, 0, 0], target[:, 0, 0])]
        losses += [similarity_loss(heatmap[:, 0], target[:, :, 0])]
        return torch.stack([*losses, resize_target(target, (2, 3)).sum()])

    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = every()
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, every(), rtol=0, atol=0)


def test_resize_target_is_the_mean_of_a_cell_and_bilinear_upwards():
    target = torch.rand(2, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    small = resize_target(target, (2, 4))
    for row in range(2):
        for column in range(4):
            cell = target[:, 3 * row : 3 * row + 3, 2 * column : 2 * column + 2]
            torch.testing.assert_close(small[:, row, column], cell.mean((1, 2)))
    assert torch.equal(resize_target(target, (6, 8)), target)
    ramp = torch.tensor([[[0.0, 1.0]]])
    expected = torch.tensor([[[0.0, 0.25, 0.75, 1.0]]]).expand(1, 2, 4)
    torch.testing.assert_close(resize_target(ramp, (2, 4)), expected)
    assert resize_target(target.bfloat16(), (2, 4)).dtype == torch.float32


def test_bad_shapes_are_refused():
    maps, weight = torch.rand(2, 3, 3), torch.ones(2)
    for loss in (divergence_loss, correlation_loss, lambda h, t, w: laplace_loss(h, h, t, w)):
        for bad in ((maps, maps[:1], weight), (maps, maps, weight[:1]), (maps[0], maps[0], weight)):
            with pytest.raises(ValueError, match="shapes do not match"):
                loss(*bad)
        with pytest.raises(ValueError, match="batch is empty"):
            loss(maps[:0], maps[:0], weight[:0])
    with pytest.raises(ValueError, match="log_sigma"):
        laplace_loss(maps, maps[:, :1], maps, weight)
    with pytest.raises(ValueError, match="gamma"):
        focal_loss(maps, maps, weight.bool(), -1.0)
    with pytest.raises(ValueError, match="score"):
        score_loss(weight, weight[:1])
    with pytest.raises(ValueError, match="resize"):
        resize_target(maps, (0, 2))


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
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 7), st.integers(0, 10**6))
def test_similarity_equals_the_papers_formula(count, channels, others, seed):
    own, other = features(count, channels, seed), features(count, others, seed + 1)
    found = similarity_loss(own, other).item()
    assert found == pytest.approx(by_loops(own, other), rel=1e-9, abs=1e-12)
    assert 0 <= found <= 4 / count + 1e-12


def test_similarity_ignores_rotation_and_scale_of_features():
    own = features(5, 4, 0)
    turn = torch.linalg.qr(features(4, 4, 1))[0]
    assert similarity_loss(7 * own @ turn, own).item() == pytest.approx(0, abs=1e-20)
    assert similarity_loss(own[torch.tensor([1, 0, 2, 3, 4])], own).item() > 1e-3


def test_similarity_of_dead_features_has_a_gradient():
    own = features(3, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: similarity_loss(x, features(3, 4, 5)), [own])
    dead = torch.zeros(3, 2, requires_grad=True)
    value = similarity_loss(dead, features(3, 4, 5).float())
    value.backward()
    assert value.isfinite()
    assert dead.grad.isfinite().all()


@pytest.mark.parametrize(
    ("own", "other"), [((2, 3), (3, 3)), ((2, 3, 1), (2, 3)), ((2,), (2, 1)), ((0, 3), (0, 3))]
)
def test_similarity_refuses_shapes_that_do_not_match(own, other):
    with pytest.raises(ValueError, match="feature"):
        similarity_loss(torch.zeros(own), torch.zeros(other))
