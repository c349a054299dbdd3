"""Gradient rollout inside the fused attention backward, against the library and whole matrices."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny

from artifactnet.config import AttentionConfig, LoraConfig
from artifactnet.models.attention import tap, tiles
from artifactnet.models.attention.chains import collecting
from artifactnet.models.attention.fused import (
    FusedBackwardState,
    MatrixGradient,
    attention_backward,
    can_use_fused_backward,
)
from artifactnet.models.attention.gradient_tiles import AttentionInputs
from artifactnet.models.attention.rollout import attention_rollout, gradient_rollout
from artifactnet.models.attention.tap import AttentionTap


def draw(batch, heads, tokens, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (5, batch, tokens, heads, dim)
    drawn = torch.randn(*shape, generator=generator, dtype=torch.float64).transpose(2, 3)
    return [part.clone().requires_grad_() for part in drawn.unbind(0)]


def matrix_of(q, k, v, logit_d_out, scale):
    weights = (q @ k.mT * scale).softmax(-1)
    return (weights * (logit_d_out @ v.mT)).mean(1).clamp_min(0)


@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 3),
    heads=st.integers(1, 4),
    tokens=st.integers(1, 9),
    rows=st.integers(1, 60),
)
@settings(max_examples=40, deadline=None)
def test_both_backwards_equal_whole_matrices_in_tiles_of_any_size(seed, batch, heads, tokens, rows):
    q, k, v, d_out, logit_d_out = draw(batch, heads, tokens, 4, seed)
    d_out, logit_d_out = d_out.detach(), logit_d_out.detach()
    sums = (q @ k.mT * 0.5).logsumexp(-1).detach()
    out = F.scaled_dot_product_attention(q, k, v, scale=0.5)
    plain = [x.detach() for x in (q, k, v)]
    state = FusedBackwardState(collect=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "tile_bytes", lambda device: rows * tokens * 8)
        first = attention_backward(AttentionInputs(*plain, logit_d_out, sums, 0.5), state)
        matrix = matrix_of(q, k, v, logit_d_out, 0.5)
        torch.testing.assert_close(state.matrix, matrix.detach(), atol=1e-12, rtol=0)
        share, target, slope = torch.rand(3, batch, tokens, dtype=torch.float64)
        state.pending = MatrixGradient(state.matrix, logit_d_out, share / heads, target, slope)
        second = attention_backward(AttentionInputs(*plain, d_out, sums, 0.5), state)
    assert state.pending is None
    expected = torch.autograd.grad(out, (q, k, v), logit_d_out, retain_graph=True)
    torch.testing.assert_close(first, expected, atol=1e-12, rtol=0)
    d_matrix = share[..., None] * (target[:, None] - slope[..., None])
    total = (out * d_out).sum() + (matrix * d_matrix).sum()
    torch.testing.assert_close(second, torch.autograd.grad(total, (q, k, v)), atol=1e-12, rtol=0)


def gradients(method="gradient_rollout", **options):
    config = AttentionConfig(method=method, second_order=False, normalization="none", **options)
    sizes = {"embed_dim": 48, "depth": 4, "num_heads": 2}
    model = tiny(kwargs=sizes, attention=config).double()
    model.head.weight.data.mul_(200)
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1)).double()
    output = model(images, attention=True, create_graph=True)
    loss = output.logit.square().sum() + 100 * (output.heatmap - 0.2).square().sum()
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in model.parameters()]
    loss.backward()
    return once, [p.grad for p in model.parameters()]


def test_a_step_is_the_same_with_and_without_the_fused_backward(monkeypatch):
    inside, twice = gradients()
    for one, other in zip(inside, twice, strict=True):  # the graph can be gone through again
        torch.testing.assert_close(2 * one, other)
    monkeypatch.setattr(tap, "can_use_fused_backward", lambda q: False)
    alone, _ = gradients()
    for one, other in zip(inside, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-7)
    assert max(float(g.abs().max()) for g in inside) > 1e-3


def test_which_calls_can_use_the_fused_backward():
    q = torch.zeros(1, 2, 64, 8)
    assert can_use_fused_backward(q)
    assert can_use_fused_backward(q.double())
    too_long = torch.zeros(1, 2, 65, 8)  # W would be larger than q, k, v and dO
    for refused in (q.bfloat16(), q.to("meta"), too_long):
        assert not can_use_fused_backward(refused)


def test_collecting_stops_after_a_failure():
    with AttentionTap(differentiable=True) as watched:
        for _ in range(4):
            q = torch.randn(1, 2, 5, 8)
            F.scaled_dot_product_attention(q, q, q)
    states = [layer.state for layer in watched.layers]

    def fail():
        with collecting(watched.layers):
            assert [state.collect for state in states] == [False, True, True, False]
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert not any(state.collect for state in states)


def watched(seed=0, depth=4):
    """Blocks' attention with handles and states, their leaves, a logit and another loss."""
    generator = torch.Generator().manual_seed(seed)
    leaves = [
        torch.randn(2, 2, 6, 8, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(3 * depth)
    ]
    x = torch.zeros(2, 2, 6, 8, dtype=torch.float64)
    with AttentionTap(differentiable=True) as tapped:
        for i in range(0, len(leaves), 3):
            q, k, v = leaves[i : i + 3]
            x = x + F.scaled_dot_product_attention(q + x, k - x, v)
    return tapped.layers, leaves, torch.tanh(x).sum((1, 2, 3)), (x**2).mean()


def row_of(kind, layers, logit, form="auto"):
    if kind == "standard":
        return attention_rollout(layers, form=form)
    if kind == "late":
        return attention_rollout(layers, start_layer=-2, form=form)
    return gradient_rollout(logit, layers, second_order=False, create_graph=True, form=form)


@pytest.mark.parametrize("first", ["standard", "gradient"])
@pytest.mark.parametrize("second", ["standard", "late", "gradient"])
def test_several_maps_of_one_forward_pass_add_up(first, second):
    """Rank-one gradients of two chains do not add, so a handle serves only one of them."""
    found = []
    for form in ("auto", "stored"):
        layers, leaves, logit, loss = watched()
        for kind, weight in ((first, 3.0), (second, 5.0)):
            loss = loss + weight * (row_of(kind, layers, logit, form)[:, 1:4] ** 2).sum()
        found.append(torch.autograd.grad(loss, leaves))
    torch.testing.assert_close(*found, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("kind", ["standard", "gradient"])
def test_a_backward_that_ends_early_leaves_nothing_behind(kind):
    layers, leaves, logit, loss = watched()
    expected = torch.autograd.grad(loss, leaves, retain_graph=True)
    row = row_of(kind, layers, logit)
    torch.autograd.grad((row**2).sum(), leaves[-3:-1], retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, leaves), expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("method", ["rollout", "gradient_rollout"])
@pytest.mark.parametrize("frozen", [True, False])
def test_adapters_and_frozen_weights_get_the_stored_form_s_gradient(method, frozen):
    pytest.importorskip("peft")
    found = []
    for form in ("auto", "stored"):
        config = AttentionConfig(method=method, second_order=False, normalization="none", form=form)
        lora = LoraConfig(rank=0 if frozen else 2)
        sizes = {"embed_dim": 48, "depth": 4, "num_heads": 2}
        model = tiny(kwargs=sizes, attention=config, lora=lora).double()
        if frozen:  # the last two blocks learn
            for block in model.backbone.net.blocks[:2]:
                block.requires_grad_(False)
        else:
            generator = torch.Generator().manual_seed(3)
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weight, std=0.1, generator=generator)
        model.head.weight.data.mul_(200)
        images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1)).double()
        output = model(images, attention=True, create_graph=True)
        (output.logit.square().sum() + 100 * output.heatmap.square().sum()).backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 4
    torch.testing.assert_close(*found, atol=1e-9, rtol=1e-7)
