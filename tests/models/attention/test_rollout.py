import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import fuse_by_loops, rollout_by_loops, softmax_by_loops

from artifactnet.models.attention import rollout
from artifactnet.models.attention.stored import attention_weights
from artifactnet.models.attention.tap import AttentionLayer, AttentionTap


def random_layers(depth, batch=2, heads=3, tokens=7, dim=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return torch.randn(batch, heads, tokens, dim, generator=generator, dtype=dtype) * 1.5

    layers = []
    for _ in range(depth):
        q, k, v = draw(), draw(), draw()
        layers.append(AttentionLayer(q, k, v, F.scaled_dot_product_attention(q, k, v), dim**-0.5))
    return layers


def reference(layers, image, how, discard_ratio=0.0, slopes=None):
    matrices = []
    for index, layer in enumerate(layers):
        q, k = layer.q[image].numpy(), layer.k[image].numpy()
        heads = np.stack([softmax_by_loops(q[h], k[h], layer.scale) for h in range(len(q))])
        if slopes is None:
            matrices.append(fuse_by_loops(heads, how))
        else:
            matrices.append(np.maximum(fuse_by_loops(heads * slopes[index][image], how), 0))
    return rollout_by_loops(matrices, discard_ratio)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    depth=st.integers(1, 4),
    how=st.sampled_from(["mean", "max", "min"]),
    ratio=st.sampled_from([0.0, 0.2, 0.9]),
)
def test_row_equals_the_full_product_by_loops(seed, depth, how, ratio):
    layers = random_layers(depth, seed=seed)
    row = rollout.attention_rollout(layers, head_fusion=how, discard_ratio=ratio)
    for image in range(2):
        expected = reference(layers, image, how, ratio)
        np.testing.assert_allclose(row[image].numpy(), expected, atol=1e-10, rtol=0)
    np.testing.assert_allclose(row.sum(dim=1).numpy(), 1.0, atol=1e-12)


@pytest.mark.parametrize("how", ["mean", "max", "min"])
@pytest.mark.parametrize("ratio", [0.0, 0.3])
def test_gradient_rollout_equals_loops_over_the_gradient_of_each_weight(how, ratio):
    """The reference differentiates the logit by the attention *matrices* themselves."""
    torch.manual_seed(3)
    batch, heads, tokens, dim, depth = 2, 2, 6, 3, 3
    tensors = [torch.randn(3, batch, heads, tokens, dim, dtype=torch.float64) for _ in range(depth)]
    mix = torch.randn(depth, dim, dtype=torch.float64)

    def logit_of(outputs):
        return sum(torch.tanh(out * mix[i]).sum(dim=(1, 2, 3)) for i, out in enumerate(outputs))

    layers, matrices = [], []
    for q, k, v in tensors:
        q.requires_grad_()
        layers.append(AttentionLayer(q, k, v, F.scaled_dot_product_attention(q, k, v), dim**-0.5))
        matrices.append(((q @ k.mT) * dim**-0.5).softmax(-1).detach().requires_grad_())
    row = rollout.gradient_rollout(
        logit_of([layer.out for layer in layers]), layers, head_fusion=how, discard_ratio=ratio
    )
    total = logit_of([m @ layer.v for m, layer in zip(matrices, layers, strict=True)]).sum()
    slopes = [g.numpy() for g in torch.autograd.grad(total, matrices)]
    plain = [AttentionLayer(x.q.detach(), x.k.detach(), x.v, x.out, x.scale) for x in layers]
    for image in range(batch):
        expected = reference(plain, image, how, ratio, slopes)
        np.testing.assert_allclose(row[image].numpy(), expected, atol=1e-10, rtol=0)


def test_gradcheck_of_second_order_gradient_rollout():
    torch.manual_seed(1)
    q, k, v = (torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in "qkv")

    def run(q, k, v):
        out = (q @ k.mT * 0.6).softmax(-1) @ v
        logit = torch.tanh(out).sum(dim=(1, 2, 3)) + (out**2).sum(dim=(1, 2, 3))
        return rollout.gradient_rollout(
            logit, [AttentionLayer(q, k, v, out, 0.6)], create_graph=True
        )

    assert torch.autograd.gradcheck(run, (q, k, v))


def test_first_order_mode_holds_only_the_output_gradient_constant():
    torch.manual_seed(2)
    q, k, v = (torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in "qkv")
    out = F.scaled_dot_product_attention(q, k, v, scale=0.6)
    logit = torch.sin(out).sum(dim=(1, 2, 3))
    row = rollout.gradient_rollout(
        logit, [AttentionLayer(q, k, v, out, 0.6)], second_order=False, create_graph=True
    )
    got = torch.autograd.grad(row[0, 1], (q, k, v))

    constant = torch.cos(out).detach()

    def explicit(q, k, v):
        weights = (q @ k.mT * 0.6).softmax(-1)
        matrix = (weights * (constant @ v.mT)).mean(1).clamp_min(0)
        return ((matrix + torch.eye(4)) / (1 + matrix.sum(-1, keepdim=True)))[0, 0, 1]

    expected = torch.autograd.grad(explicit(q, k, v), (q, k, v))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
        assert one.abs().max() > 0


def test_attention_bias_and_boolean_masks_enter_the_weights():
    q, k, v = (torch.randn(1, 1, 4, 3, dtype=torch.float64) for _ in "qkv")
    bias = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    allowed = torch.tensor([True, True, False, True]).expand(1, 1, 4, 4)
    for mask in (bias, allowed):
        with AttentionTap() as tap:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        weights = attention_weights(tap.layers[0])
        torch.testing.assert_close(weights @ v, out)
        one = attention_weights(tap.layers[0], slice(2, 3))
        torch.testing.assert_close(one, weights[:, :, 2:3])


def test_tap_refuses_attention_it_would_misread():
    q = torch.randn(1, 1, 4, 3)
    with AttentionTap(), pytest.raises(ValueError, match="causal"):
        F.scaled_dot_product_attention(q, q, q, is_causal=True)


def test_unknown_names_are_refused():
    layers = random_layers(1)
    with pytest.raises(ValueError, match="mean, max or min"):
        rollout.attention_rollout(layers, head_fusion="median")
    with pytest.raises(ValueError, match="saturate, max, minmax, none"):
        rollout.normalize(torch.ones(1, 2, 2), "softmax")


def test_patch_map_drops_every_prefix_token_and_keeps_a_non_square_grid():
    row = torch.arange(5 + 6, dtype=torch.float32)[None]
    grid = rollout.patch_map(row, 5, (2, 3))
    assert grid.tolist() == [[[5, 6, 7], [8, 9, 10]]]
    with pytest.raises(ValueError, match="do not fill"):
        rollout.patch_map(row, 1, (2, 3))


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(0, 1), min_size=6, max_size=6),
    how=st.sampled_from(["saturate", "max", "minmax", "none"]),
)
def test_normalized_maps_lie_in_the_unit_interval_and_keep_their_order(values, how):
    raw = torch.tensor(values, dtype=torch.float64).view(1, 2, 3)
    raw = raw / max(1.0, float(raw.sum()))
    out = rollout.normalize(raw, how)
    assert torch.isfinite(out).all()
    assert out.min() >= 0
    assert out.max() <= 1
    flat_in, flat_out = raw.flatten(), out.flatten()
    order = flat_in.argsort()
    assert (flat_out[order].diff() >= -1e-12).all()


def test_normalization_values():
    raw = torch.tensor([[[0.0, 0.25], [0.5, 0.25]]], dtype=torch.float64)
    torch.testing.assert_close(rollout.normalize(raw, "saturate"), 1 - 2 ** (-2 * raw))
    even = torch.full((1, 3, 4), 1 / 12, dtype=torch.float64)
    torch.testing.assert_close(rollout.normalize(2 * even, "saturate"), torch.full_like(even, 0.5))
    torch.testing.assert_close(rollout.normalize(raw, "max"), raw / 0.5)
    torch.testing.assert_close(rollout.normalize(raw, "minmax"), raw / 0.5)
    zeros = torch.zeros(1, 2, 2)
    for how in rollout.NORMALIZATIONS:
        assert rollout.normalize(zeros, how).abs().sum() == 0
