import pytest
import torch
import torch.nn.functional as F
from tiny_models import TINY, tiny

from artifactnet.config import AttentionConfig
from artifactnet.types import ArtifactNetError

GRADIENT = AttentionConfig(method="gradient_rollout")
# one class token; registers; rotary positions with registers; two prefix tokens
VITS = {
    "vit_tiny_patch16_224": 1,
    "vit_small_patch14_reg4_dinov2": 5,
    "vit_small_patch16_dinov3": 5,
    "deit_tiny_distilled_patch16_224": 2,
}


def images(model, count=2, size=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *(size or model.image_size), generator=generator)


def by_unfused_attention(model, x):
    """Attention matrices from a second forward pass with every P written out."""
    matrices = []

    def attend(q, k, v, *args, **kwargs):
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        matrices.append(weights)
        return weights @ v

    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = attend
    try:
        with torch.no_grad():
            logit = model(x).logit
    finally:
        F.scaled_dot_product_attention = original
    return logit, matrices


@pytest.mark.parametrize("name", VITS)
def test_rollout_of_real_backbones_equals_the_full_matrix_product(name):
    patch = 14 if "patch14" in name else 16
    model = tiny(name, size=(2 * patch, 3 * patch)).double()
    x = images(model).double()
    with torch.no_grad():
        output = model(x, attention=True)
    logit, matrices = by_unfused_attention(model, x)
    tokens = 6 + VITS[name]
    product = torch.eye(tokens, dtype=torch.float64).expand(2, -1, -1)
    for weights in matrices:
        step = (weights.mean(1) + torch.eye(tokens, dtype=torch.float64)) / 2
        product = step @ product
    expected = product[:, 0, VITS[name] :].reshape(2, 2, 3)
    torch.testing.assert_close(output.attention, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(output.logit, logit, atol=1e-10, rtol=0)
    torch.testing.assert_close(output.heatmap, 1 - 2 ** (-3 * expected), atol=1e-9, rtol=0)
    assert model.grid == (2, 3)


@pytest.mark.parametrize("attention", [AttentionConfig(), GRADIENT])
def test_a_batch_equals_its_images_one_by_one(attention):
    model = tiny(attention=attention)
    x = images(model, 3)
    with torch.no_grad():
        together = model(x, attention=True)
        alone = [model(image[None], attention=True) for image in x]
    for name in ("logit", "attention", "heatmap"):
        joined = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(together, name), joined, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("attention", [AttentionConfig(), GRADIENT])
@pytest.mark.parametrize("training", [True, False])
def test_computing_a_map_leaves_the_model_unchanged(attention, training):
    model = tiny(attention=attention).train(training)

    def state():
        modules = [(m.training, sorted(m.__dict__)) for m in model.modules()]
        return modules, [(p.requires_grad, p.grad) for p in model.parameters()]

    before = state()
    with torch.no_grad():
        output = model(images(model), attention=True)
    assert not output.logit.requires_grad
    assert not output.heatmap.requires_grad
    assert state() == before
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    assert not any(getattr(m, h) for m in model.modules() for h in hooks)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("attention", [AttentionConfig(), GRADIENT])
def test_maps_under_inference_mode_and_with_frozen_weights(attention):
    model = tiny(attention=attention)
    x = images(model)
    with torch.no_grad():
        expected = model(x, attention=True)
    with torch.inference_mode():
        inside = model(images(model), attention=True)
    torch.testing.assert_close(inside.heatmap, expected.heatmap)
    model.requires_grad_(False)
    with torch.no_grad():
        frozen = model(x, attention=True)
    torch.testing.assert_close(frozen.heatmap, expected.heatmap)


def test_any_size_of_whole_patches_and_no_other():
    model = tiny()
    with torch.no_grad():
        assert model(images(model, size=(64, 16)), attention=True).heatmap.shape == (2, 4, 1)
    with pytest.raises(ArtifactNetError, match="40x48 pixels does not fill whole patches of 16"):
        model(images(model, size=(40, 48)), attention=True)
    with pytest.raises(ArtifactNetError, match=r"image_size 30x48 .* patch size 16"):
        tiny(size=(30, 48))


def test_windowed_attention_has_a_verdict_but_no_rollout():
    model = tiny("tiny_vit_5m_224", size=(64, 64), kwargs={})
    assert model(images(model, 1)).logit.shape == (1,)
    assert not model.has_attention
    assert model.grid is None
    with pytest.raises(ArtifactNetError, match="no attention map: tiny_vit_5m_224"):
        model(images(model, 1), attention=True)
    pooled = tiny("vit_base_patch16_siglip_224", kwargs={**TINY, "global_pool": "avg"})
    assert "class token" in pooled.no_attention


def test_conv_stem_keeps_grid_and_independence_of_images():
    for name, size in (("vit_tiny_patch16_224", (32, 48)), ("vit_small_patch14_dinov2", (28, 42))):
        model = tiny(name, size=size, stem="conv", stem_width=8)
        x = images(model)
        with torch.no_grad():
            both = model(x, attention=True)
            first = model(x[:1], attention=True)
        assert both.heatmap.shape == (2, 2, 3)
        torch.testing.assert_close(both.logit[:1], first.logit)
    with pytest.raises(ArtifactNetError, match="stem=conv needs patches"):
        tiny("resnet18", kwargs={}, stem="conv")


def test_a_start_layer_beyond_the_last_block_is_refused():
    with pytest.raises(ArtifactNetError, match="start_layer is 3, but .* has 3 blocks"):
        tiny(attention=AttentionConfig(start_layer=3))


def test_conv_stem_residual_ignores_flat_light_and_answers_detail():
    from artifactnet.models.conv_stem import ConvStem

    torch.manual_seed(0)
    stem = ConvStem(16, 24, 8).double()
    seen = []
    stem.layers.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    flat = torch.full((1, 3, 32, 32), 0.7, dtype=torch.float64)
    flat[..., 10, 20] += 0.1
    stem(flat)
    residual = seen[0][0, 3:]
    inner = residual[:, 1:-1, 1:-1].clone()
    expected = torch.zeros(3, 30, 30, dtype=torch.float64)
    kernel = torch.tensor([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]], dtype=torch.float64)
    expected[:, 8:11, 18:21] = 0.1 * kernel
    torch.testing.assert_close(inner, expected, atol=1e-12, rtol=0)
    assert "kernel" not in stem.state_dict()
