"""Gradient rollout without N x N storage against whole matrices, to first and second order."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny

from artifactnet.config import AttentionConfig
from artifactnet.models.attention import tiles
from artifactnet.models.attention.chains import weighted_row
from artifactnet.models.attention.tap import AttentionLayer


def draw(depth, batch=2, heads=3, tokens=6, dim=4, seed=0):
    """Per block q, k, v and dO, float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (4 * depth, batch, tokens, heads, dim)
    drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return [part.transpose(1, 2).detach().requires_grad_() for part in drawn.unbind(0)]


def by_tiles(tensors, scale=0.5):
    blocks = [tensors[i : i + 4] for i in range(0, len(tensors), 4)]
    layers = [AttentionLayer(q, k, v, v, scale) for q, k, v, _ in blocks]
    return weighted_row(layers, [block[3] for block in blocks])


def by_matrices(tensors, scale=0.5):
    product = None
    for i in range(0, len(tensors), 4):
        q, k, v, d_out = tensors[i : i + 4]
        weights = (q @ k.mT * scale).softmax(-1)
        matrix = (weights * (d_out @ v.mT)).mean(1).clamp_min(0)
        step = matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype)
        step = step / step.sum(-1, keepdim=True)
        product = step if product is None else step @ product
    return product[:, 0]


@given(
    seed=st.integers(0, 10_000),
    depth=st.integers(1, 3),
    batch=st.integers(1, 3),
    heads=st.integers(1, 4),
    tokens=st.integers(1, 9),
    rows=st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_row_and_gradients_equal_whole_matrices_in_tiles_of_any_size(
    seed, depth, batch, heads, tokens, rows
):
    tensors = draw(depth, batch, heads, tokens, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "tile_bytes", lambda device: rows * tokens * 8)
        row = by_tiles(tensors)
        weights = torch.randn(
            row.shape, dtype=row.dtype, generator=torch.Generator().manual_seed(seed)
        )
        got = torch.autograd.grad(row, tensors, weights)
    expected = by_matrices(tensors)
    torch.testing.assert_close(row, expected, atol=1e-12, rtol=0)
    for one, other in zip(got, torch.autograd.grad(expected, tensors, weights), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def parameter_gradients(second_order, form, accumulate=1, precision=None):
    config = AttentionConfig(
        method="gradient_rollout", second_order=second_order, form=form, normalization="none"
    )
    model = tiny(kwargs={"embed_dim": 48, "depth": 3, "num_heads": 2}, attention=config)
    model.head.weight.data.mul_(200)  # a logit whose gradient is not lost beside the identity
    model = model if precision else model.double()
    images = torch.randn(4, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    for part in images.to(model.head.weight.dtype).chunk(accumulate):
        with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
            output = model(part, attention=True, create_graph=True)
            loss = output.logit.square().sum() + 100 * (output.heatmap - 0.2).square().sum()
        loss.backward()
    return output.heatmap.detach(), [p.grad for p in model.parameters()]


@pytest.mark.parametrize("second_order", [True, False])
def test_training_gradients_equal_the_stored_form(second_order):
    fused, stored = (parameter_gradients(second_order, form) for form in ("auto", "stored"))
    torch.testing.assert_close(fused[0], stored[0], atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(fused[1], stored[1], atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("second_order", [True, False])
def test_accumulated_gradients_equal_the_whole_batch_s(second_order):
    whole, parts = (parameter_gradients(second_order, "auto", n) for n in (1, 2))
    torch.testing.assert_close(whole[1], parts[1], atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_trains_on_nearly_the_same_gradient(dtype):
    exact = parameter_gradients(False, "auto")[1]
    mixed = parameter_gradients(False, "auto", precision=dtype)[1]
    both = [torch.cat([g.double().flatten() for g in each]) for each in (exact, mixed)]
    assert F.cosine_similarity(*both, dim=0) > 0.99
