"""Attention maps of whole networks against full matrices of the same network."""

import pytest
import timm
import torch
from tiny_models import TINY, tiny

from artifactnet.explanation.attention import (
    ATTENTION_METHODS,
    attention_maps,
    why_no_attention_map,
)
from artifactnet.explanation.detector import Classifier, OwnDetector
from artifactnet.models.attention.stored import attention_weights
from artifactnet.models.attention.tap import AttentionTap
from artifactnet.types import ArtifactNetError

SIZE = (32, 48)


def classifier(name="vit_tiny_patch16_224", **more):
    torch.manual_seed(3)
    net = timm.create_model(name, num_classes=2, img_size=SIZE, **{**TINY, **more}).eval()
    return Classifier(net, SIZE)


def by_full_matrices(detector, image, method):
    """(h, w) of one image from (N, N) products in float64, without any of the row tricks."""
    with torch.enable_grad(), AttentionTap(differentiable=True) as tap:
        logit = detector.logits(image[None])
    gradients = torch.autograd.grad(logit.sum(), [layer.out for layer in tap.layers])
    tokens = tap.layers[0].q.shape[2]
    eye = torch.eye(tokens, dtype=torch.float64)
    product = eye
    for layer, gradient in zip(tap.layers, gradients, strict=True):
        attention = attention_weights(layer)[0].detach().double()
        slope = gradient[0].double() @ layer.v[0].detach().double().mT
        if method == "rollout":
            step = (attention.mean(0) + eye) / 2
        elif method == "gradient_rollout":
            step = (attention * slope).mean(0).clamp_min(0) + eye
            step = step / step.sum(-1, keepdim=True)
        else:
            step = (attention * slope).clamp_min(0).mean(0) + eye
        product = step @ product
    prefix = detector.net.num_prefix_tokens
    return product[0, prefix:].reshape(SIZE[0] // 16, SIZE[1] // 16)


@pytest.mark.parametrize("method", ATTENTION_METHODS)
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_maps_of_any_timm_vit_equal_the_full_product(name, method):
    more = {"patch_size": 16}
    if "dinov2" in name:
        more["init_values"] = 1.0
    detector = classifier(name, **more)
    detector.module.double()
    images = torch.randn(3, 3, *SIZE, dtype=torch.float64)
    maps = attention_maps(detector, images, method)
    assert maps.shape == (3, 2, 3)
    for image, found in zip(images, maps, strict=True):
        expected = by_full_matrices(detector, image, method)
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)
        assert expected.std() > 0
        alone = attention_maps(detector, image[None], method)[0]
        torch.testing.assert_close(found, alone, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("method", ATTENTION_METHODS)
def test_the_model_is_left_alone_whatever_the_caller_does(method):
    model = tiny(size=SIZE)
    model.train()
    model.backbone.net.blocks[0].eval()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    model.backbone.requires_grad_(False)
    before = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    detector = OwnDetector(model)
    images = torch.randn(2, 3, *SIZE)
    plain = attention_maps(detector, images, method)
    with torch.no_grad():
        torch.testing.assert_close(attention_maps(detector, images, method), plain)
    with torch.inference_mode():
        inside = attention_maps(detector, torch.zeros(2, 3, *SIZE) + images, method)
    torch.testing.assert_close(inside.clone(), plain)
    after = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    assert after == before
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))


def test_networks_without_global_attention_are_refused_with_a_reason():
    net = timm.create_model("resnet10t", num_classes=2)
    detector = Classifier(net, (64, 64))
    assert "no global attention" in why_no_attention_map(net)
    with pytest.raises(ArtifactNetError, match="relevance"):
        attention_maps(detector, torch.zeros(1, 3, 64, 64), "relevance")


def test_unfused_attention_is_noticed(monkeypatch):
    detector = classifier()
    for block in detector.net.blocks[:1]:
        block.attn.fused_attn = False
    with pytest.raises(ArtifactNetError, match="2 of 3 blocks"):
        attention_maps(detector, torch.zeros(1, 3, *SIZE), "rollout")
