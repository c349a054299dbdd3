"""The second stream of the verdict."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.config import ConfigError, ContextConfig, ModelConfig, load
from artifactnet.models import create, packaged
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import load_checkpoint, save_checkpoint
from artifactnet.models.context import ContextStream, context_model, either
from artifactnet.models.timm_net import create_net
from artifactnet.types import ArtifactNetError

TINY = "vit_tiny_patch16_224"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def config(**context: object) -> ModelConfig:
    """A small convolutional detector with a context."""
    return ModelConfig(
        backbone="resnet10t",
        pretrained="false",
        image_size=[64, 64],
        context=ContextConfig(  # type: ignore[arg-type]
            **{"backbone": TINY, "pretrained": "false", "image_size": 32, "blocks": [1, 3]}
            | context
        ),
    )


def by_hand(stream: ContextStream, small: torch.Tensor) -> torch.Tensor:
    """Features of images at the ViT's size, from its blocks one after the other."""
    net = stream.net
    tokens = net.norm_pre(net.patch_drop(net._pos_embed(net.patch_embed(small))))
    parts = []
    for index, block in enumerate(net.blocks):
        tokens = block(tokens)
        if index in stream.blocks:
            normed = net.norm(tokens)
            patches = normed[:, 1:].double()
            parts += [normed[:, 0].double(), patches.mean(1)]
    return torch.cat(parts, 1)


def test_features_are_token_and_mean_of_each_block() -> None:
    torch.manual_seed(0)
    stream = ContextStream(config().context, MEAN, STD, create_net(context_model(config().context)))
    stream._scale, stream._shift = (1.0,) * 3, (0.0,) * 3  # as if the ViT expected these values
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found, wanted = stream.eval().features(images), by_hand(stream, images)
    assert found.shape == (2, stream.num_features) == (2, 2 * 2 * 192)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
    assert len(stream.net.blocks) == 4  # none behind the last that is read


def test_images_reach_the_vit_in_its_own_normalisation() -> None:
    torch.manual_seed(0)
    net = create_net(context_model(config().context))
    pixels = torch.rand(2, 3, 32, 32)
    found = []
    for mean, std in ((MEAN, STD), ((0.2, 0.3, 0.4), (0.3, 0.1, 0.2))):
        stream = ContextStream(config().context, mean, std, net).eval()
        normalised = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        with torch.no_grad():
            found.append(stream.features(normalised))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_large_images_are_averaged_and_small_ones_enlarged() -> None:
    stream = ContextStream(config().context, MEAN, STD).eval()
    small = torch.randn(1, 3, 32, 32)
    large = small.repeat_interleave(3, 2).repeat_interleave(3, 3)
    with torch.no_grad():
        torch.testing.assert_close(stream.features(large), stream.features(small))
        assert stream.features(torch.randn(1, 3, 20, 48)).shape == (1, stream.num_features)


def test_an_image_is_fake_if_either_stream_says_so() -> None:
    torch.manual_seed(0)
    model = ArtifactNet(config()).eval()
    assert model.context is not None
    torch.nn.init.normal_(model.context.head.weight, std=0.05)
    context, model.context = model.context, None
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        detail, whole = model(images).logit.double().sigmoid(), context(images).double().sigmoid()
        model.context = context
        found = model(images).logit.double().sigmoid()
    torch.testing.assert_close(found, 1 - (1 - detail) * (1 - whole), rtol=1e-5, atol=1e-7)


@given(st.floats(-60, 60), st.floats(-60, 60))
def test_either(a: float, b: float) -> None:
    logits = torch.tensor([a, b], dtype=torch.float64)
    found = either(logits[0].float(), logits[1].float())
    odds = math.exp(a) + math.exp(b) + math.exp(a + b)  # 1 + o = (1 + o_a) (1 + o_b)
    assert float(found) == pytest.approx(math.log(odds), rel=1e-5, abs=1e-5)
    assert torch.equal(found, either(logits[1].float(), logits[0].float()))


def test_at_first_it_has_hardly_a_say() -> None:
    model = ArtifactNet(config()).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        both = model(images).logit.sigmoid()
        model.context = None
        torch.testing.assert_close(model(images).logit.sigmoid(), both, rtol=0, atol=0.02)


def test_frozen_it_stays_and_its_head_learns() -> None:
    model = ArtifactNet(config())
    model.freeze(["context", "backbone"])
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    assert learning == {"head.weight", "head.bias", "context.head.weight", "context.head.bias"}
    assert not model.train().context.net.training  # type: ignore[union-attr]
    model(torch.randn(2, 3, 64, 64)).logit.sum().backward()
    assert model.context.head.weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_saved_and_loaded_it_answers_the_same(tmp_path: Path) -> None:
    model = ArtifactNet(config()).eval()
    torch.nn.init.normal_(model.context.head.weight)  # type: ignore[union-attr]
    save_checkpoint(model, tmp_path / "model.safetensors")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = load_checkpoint(tmp_path / "model.safetensors")(images).logit
        assert torch.equal(found, model(images).logit)


def test_it_starts_from_published_weights_in_the_package() -> None:
    made = ModelConfig(
        backbone="resnet10t",
        pretrained="false",
        image_size=[64, 64],
        context=ContextConfig(backbone="vit_small_patch14_dinov2", image_size=28, blocks=[0, 1]),
    )
    model = create.create_model(made)
    assert not model.notices
    assert model.context is not None
    from safetensors.torch import load_file

    weights = load_file(packaged.PUBLISHED["vit_small_patch14_dinov2"].path)
    for name in ("blocks.1.attn.qkv.weight", "norm.bias"):
        assert torch.equal(model.context.net.state_dict()[name], weights[name].float())


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"backbone": "resnet10t"}, r"model\.context\.backbone must be a plain ViT"),
        ({"blocks": [3, 12]}, r"model\.context\.blocks names 12, but vit_tiny.* 12 blocks"),
        ({"backbone": "vit_tiny_patch"}, "timm has no model named"),
        ({"image_size": 30}, r"model\.context\.image_size 30 is not a multiple .* 16"),
    ],
)
def test_what_cannot_be_built_is_refused(context: dict[str, object], message: str) -> None:
    with pytest.raises(ArtifactNetError, match=message):
        ArtifactNet(config(**context))


def test_rules() -> None:
    for override, key in (
        ("model.context.blocks=[3,1]", "model.context.blocks"),
        ("model.context.blocks=[]", "model.context.blocks"),
        ("model.context.image_size=0", "model.context.image_size"),
    ):
        with pytest.raises(ConfigError, match=key):
            load("student_nano", [override])
    with pytest.raises(ConfigError, match=r"model\.context\.backbone .*mapper"):
        load("heie_vision", [f"model.context.backbone={TINY}"])
