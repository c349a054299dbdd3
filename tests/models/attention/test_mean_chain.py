"""Gradients of standard rollout without N x N storage; its row is checked in test_rollout."""

import pytest
import torch
import torch.nn.functional as F
from tiny_models import tiny

from artifactnet.config import AttentionConfig
from artifactnet.models.attention import tiles
from artifactnet.models.attention.chains import mean_row
from artifactnet.models.attention.rollout import attention_rollout
from artifactnet.models.attention.tap import AttentionTap


def leaves(depth, batch=2, heads=3, tokens=7, dim=8, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (3 * depth, batch, heads, tokens, dim)
    drawn = torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
    return [part.clone().requires_grad_() for part in drawn.unbind(0)]


def attend(tensors, fused=True, **options):
    """Blocks' attention as a model makes it: layers, and the sum of what they put out."""
    with AttentionTap(fused=fused) as tap:
        outs = [
            F.scaled_dot_product_attention(*tensors[i : i + 3], **options)
            for i in range(0, len(tensors), 3)
        ]
    return tap.layers, torch.stack([torch.sin(out).sum() for out in outs]).sum()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("depth", [1, 3])
def test_gradcheck(fused, depth):
    """Through the handles, and through queries and keys; with the attention's own gradient."""
    tensors = leaves(depth, batch=1, heads=2, tokens=5)

    def run(*tensors):
        layers, others = attend(tensors, fused)
        assert all((layer.handle is not None) == fused for layer in layers)
        return mean_row(layers), others

    assert torch.autograd.gradcheck(run, tensors)


def test_dropout_of_the_block_does_not_reach_the_map():
    tensors = leaves(2)
    torch.manual_seed(0)
    layers, _ = attend(tensors, dropout_p=0.5)
    assert all(layer.handle is None for layer in layers)
    dropped = mean_row(layers)
    plain = mean_row(attend(tensors)[0])
    torch.testing.assert_close(dropped, plain, atol=1e-12, rtol=0)
    weights = torch.randn_like(plain)
    chosen = [tensor for i, tensor in enumerate(tensors) if i % 3 < 2]
    pairs = (torch.autograd.grad(row, chosen, weights) for row in (dropped, plain))
    torch.testing.assert_close(*pairs, atol=1e-12, rtol=0)


def gradients(model, images, create_graph=True):
    output = model(images, attention=True, create_graph=create_graph)
    loss = output.logit.square().mean() + 3 * (output.heatmap - 0.3).square().mean()
    model.zero_grad()
    loss.backward()
    return output.heatmap.detach(), [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize(
    ("backbone", "kwargs"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_small_patch14_reg4_dinov2", {"init_values": 1.0}),
        ("vit_tiny_patch16_224", {"qk_norm": True}),
        ("vit_small_patch16_dinov3", {}),
    ],
)
def test_training_gradients_equal_the_stored_form(backbone, kwargs):
    """Prefix tokens, q/k norm, rotary positions, a grid that is not square."""
    patch = 14 if "patch14" in backbone else 16
    sizes = {"embed_dim": 48, "depth": 3, "num_heads": 2}
    size, results = (2 * patch, 5 * patch), []
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).double()
    for form in ("auto", "stored"):
        attention = AttentionConfig(form=form, normalization="none")
        model = tiny(backbone, size=size, kwargs={**sizes, **kwargs}, attention=attention)
        results.append(gradients(model.double(), images))
    (heatmap, tiled), (expected, stored) = results
    torch.testing.assert_close(heatmap, expected, atol=1e-12, rtol=1e-10)
    assert heatmap.std() > 0
    torch.testing.assert_close(tiled, stored, atol=1e-10, rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_trains_on_nearly_the_same_gradient(dtype):
    model = tiny(kwargs={"embed_dim": 48, "depth": 3, "num_heads": 2})
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    heatmap, exact = gradients(model, images)
    with torch.autocast("cpu", dtype=dtype):
        mixed_map, mixed = gradients(model, images)
    assert mixed_map.dtype == torch.float32
    torch.testing.assert_close(mixed_map, heatmap, atol=0.01, rtol=0.02)
    both = [torch.cat([g.flatten() for g in each]) for each in (exact, mixed)]
    assert F.cosine_similarity(*both, dim=0) > 0.999


def test_results_are_the_same_every_time():
    tensors = leaves(3, tokens=150, dtype=torch.float32)

    def run():
        layers, others = attend(tensors)
        row = mean_row(layers)
        loss = others + (row**2).sum() * 100
        return [row, *torch.autograd.grad(loss, tensors)]

    first = run()
    for _ in range(3):
        assert all(torch.equal(one, other) for one, other in zip(first, run(), strict=True))


def test_nothing_of_size_n_times_n_is_kept(monkeypatch):
    kept = []
    tensors = leaves(2, batch=1, heads=2, tokens=300, dtype=torch.float32)
    monkeypatch.setattr(tiles, "tile_bytes", lambda device: 300 * 4 * 16)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        mean_row(attend(tensors)[0])
    assert kept
    assert max(x.numel() for x in kept) < 300 * 300
    layers = attend(tensors)[0]
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        attention_rollout(layers, form="stored")
    assert max(x.numel() for x in kept) >= 300 * 300


def test_negative_start_layers_count_from_the_end():
    layers, _ = attend(leaves(4))
    torch.testing.assert_close(
        attention_rollout(layers, start_layer=-2), attention_rollout(layers[2:])
    )
    with pytest.raises(ValueError, match="start_layer -5"):
        attention_rollout(layers, start_layer=-5)
