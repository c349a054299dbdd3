"""create_model and list_models: what a model is built from, and where its weights come from."""

import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tiny_models import tiny

from artifactnet.config import HeatmapConfig, ModelConfig
from artifactnet.models import create
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.models.create import create_model, list_models, load_backbone_weights
from artifactnet.models.timm_net import kwargs_change_tensors
from artifactnet.types import ArtifactNetError

TINY_VIT = Path(__file__).parents[3] / "shared" / "weights" / "tiny_vit_5m_mobilesam.safetensors"
DEIT = {"backbone": "deit_tiny_patch16_224", "image_size": [32, 32]}


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_a_name_and_a_config_build_the_same_model():
    torch.manual_seed(3)
    one = create_model(
        "test_convnext", pretrained=False, image_size=64, attention="grad_cam", heatmap="decoder"
    )
    config = ModelConfig("test_convnext", heatmap=HeatmapConfig(head="decoder"))
    config.pretrained, config.image_size = "false", [64, 64]
    config.attention.method = "grad_cam"
    torch.manual_seed(3)
    other = create_model(config)
    assert one.config == other.config
    assert other.config is not config
    torch.manual_seed(3)
    random = ArtifactNet(config)  # the constructor alone draws the same numbers
    for net in (other, random):
        state = net.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"model": "vit_tinny_patch16_224"}, "vit_tiny_patch16_224"),
        ({"model": "vit_tiny_patch16_224", "attention": "cam"}, r"model\.attention\.method"),
        ({"model": "vit_tiny_patch16_224", "image_size": (32, 0)}, r"model\.image_size"),
        ({"model": ModelConfig(**DEIT, backbone_kwargs={"no": 1})}, r"deit.* cannot be built"),
    ],
)
def test_user_errors_name_the_key(arguments, key):
    with pytest.raises(ArtifactNetError, match=key):
        create_model(**arguments, pretrained=False)


def test_lists_of_models():
    assert list_models() == ["artifactnet-small", "student-nano", "vit-aligned"]
    assert list_models("vit*") == ["vit-aligned"]
    found = list_models("swin_tiny*", backbones=True)
    assert "swin_tiny_patch4_window7_224" in found
    assert set(found) <= set(list_models(backbones=True))


@pytest.mark.usefixtures("no_hub")
def test_auto_continues_with_random_weights_and_a_notice(caplog):
    model = create_model(ModelConfig(**DEIT))
    (notice,) = model.notices
    assert "RANDOM weights" in notice
    assert "no route to host" in notice
    assert notice in caplog.text


@pytest.mark.usefixtures("no_hub")
def test_true_is_an_error_without_a_hub():
    with pytest.raises(ArtifactNetError, match=r"pretrained=true, but .* model\.weights=PATH"):
        create_model("deit_tiny_patch16_224", pretrained=True)


@pytest.mark.parametrize(
    ("kwargs", "changes"),
    [
        ({}, False),
        ({"patch_drop_rate": 0.5}, False),
        ({"drop_path_rate": 0.2, "proj_drop_rate": 0.1}, False),
        ({"depth": 2}, True),
        ({"embed_dim": 48, "num_heads": 2}, True),
        ({"reg_tokens": 2}, True),
    ],
)
def test_only_kwargs_that_change_tensors_refuse_published_weights(monkeypatch, kwargs, changes):
    config = ModelConfig(**DEIT, backbone_kwargs=kwargs)
    before = torch.get_rng_state()
    assert kwargs_change_tensors(config) == changes
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(create, "why_unreachable", lambda: None)
    reason = create._why_unpublished(config)
    assert reason is None if not changes else "backbone_kwargs" in reason


def test_a_model_without_published_weights(monkeypatch):
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: None)
    assert "publishes no weights" in create_model(ModelConfig(**DEIT)).notices[0]


def test_a_hub_that_answers_with_an_error_page_is_reachable(monkeypatch):
    def answer(request, timeout):
        assert timeout <= 5
        raise urllib.error.HTTPError(request.full_url, 403, "no", {}, None)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(urllib.request, "urlopen", answer)
    assert create.why_unreachable() is None
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in create.why_unreachable()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_local_weights_load_to_the_bit(tmp_path, suffix):
    source = timm.create_model("deit_tiny_patch16_224", img_size=(32, 48), num_classes=7)
    path = tmp_path / f"weights.{suffix}"
    (torch.save if suffix == "pth" else save_file)(source.state_dict(), path)
    model = create_model("deit_tiny_patch16_224", image_size=(32, 48), weights=path)
    state = model.backbone.net.state_dict()
    assert all(torch.equal(state[k], v) for k, v in source.state_dict().items() if k in state)
    assert set(source.state_dict()) - set(state) == {"head.weight", "head.bias"}
    assert model.notices == ()


def test_files_that_do_not_fit_or_cannot_be_read(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a.weight": torch.zeros(2)}, path)
    for strict in (True, False):
        config = ModelConfig(**DEIT, weights=str(path), weights_strict=strict)
        with pytest.raises(ArtifactNetError, match=r"other\.safetensors: other architecture"):
            create_model(config)
    with pytest.raises(ArtifactNetError, match=r"absent\.safetensors: cannot be read: \w+"):
        create_model(ModelConfig(**DEIT, weights=str(tmp_path / "absent.safetensors")))


@pytest.mark.skipif(not TINY_VIT.is_file(), reason=f"no pretrained TinyViT at {TINY_VIT}")
def test_real_half_precision_tiny_vit_weights_load():
    model = create_model("tiny_vit_5m_224", weights=TINY_VIT)
    name, value = next(iter(load_file(TINY_VIT).items()))
    assert torch.equal(model.backbone.net.state_dict()[name], value.float())
    assert model(torch.zeros(1, 3, 224, 224)).logit.isfinite().all()


def test_the_layout_of_meta_dinov2_is_converted(tmp_path):
    """Meta's files carry a mask token that timm's model does not have."""
    source = timm.create_model("vit_small_patch14_dinov2", img_size=28, num_classes=0, depth=1)
    state = {**source.state_dict(), "mask_token": torch.zeros(1, 384)}
    torch.save(state, tmp_path / "dinov2.pth")
    net = timm.create_model(
        "vit_small_patch14_dinov2", img_size=42, num_classes=0, depth=1, dynamic_img_size=True
    )
    load_backbone_weights(net, str(tmp_path / "dinov2.pth"))
    key = "blocks.0.attn.qkv.weight"
    assert torch.equal(net.state_dict()[key], state[key])
    assert net.pos_embed.shape[1] == 1 + 9


def convnext(depths, weights=None, strict=True, seed=0):
    torch.manual_seed(seed)
    config = ModelConfig("convnext_atto", weights=weights, weights_strict=strict)
    config.backbone_kwargs = {"dims": [8, 16, 24, 32], "depths": list(depths)}
    config.image_size = [64, 64]
    return create_model(config, pretrained=None if weights else False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("w") / "large.safetensors"
    large = convnext((1, 1, 3, 1), seed=5)
    save_checkpoint(large, path)
    return str(path), large


def test_the_same_and_a_shallower_net_take_all_that_they_have(saved):
    path, large = saved
    theirs = large.backbone.state_dict()
    for net in (convnext((1, 1, 3, 1), path), convnext((1, 1, 2, 1), path, strict=False)):
        assert all(torch.equal(v, theirs[k]) for k, v in net.backbone.state_dict().items())
        assert not torch.equal(net.head.weight, large.head.weight)
        assert net.notices == ()


def test_a_deeper_net_reports_how_much_is_random(saved, caplog):
    (notice,) = convnext((2, 2, 6, 2), saved[0], strict=False).notices
    assert "large.safetensors" in notice
    assert "RANDOM weights, e.g. stages." in notice
    assert notice in caplog.text
    with pytest.raises(ArtifactNetError, match="other architecture"):  # strict is the default
        convnext((1, 1, 2, 1), saved[0])


def test_a_saved_convolutional_stem_comes_along(tmp_path):
    large = tiny(seed=3, stem="conv", stem_width=8)
    path = tmp_path / "vit.safetensors"
    save_checkpoint(large, path)
    ours = create_model(large.config, weights=path).backbone.state_dict()
    assert all(torch.equal(ours[k], v) for k, v in large.backbone.state_dict().items())


@pytest.mark.parametrize(
    "name", ["beit_base_patch16_224", "beitv2_base_patch16_224", "eva02_tiny_patch14_224"]
)
def test_weights_of_a_vit_that_averages_fit_its_class_token(name, tmp_path, monkeypatch):
    """They have a norm after pooling: of a class token it is the norm of every token."""
    config = ModelConfig(
        backbone=name,
        backbone_kwargs={"depth": 1, "embed_dim": 24, "num_heads": 2},
        image_size=[28, 28] if "14" in name else [32, 32],
    )
    published = timm.create_model(
        name, num_classes=0, img_size=config.image_size, **config.backbone_kwargs
    ).eval()
    for weight in published.fc_norm.parameters():
        torch.nn.init.normal_(weight)
    file = tmp_path / "published.safetensors"
    save_file(published.state_dict(), file)
    monkeypatch.setattr(
        timm.models._builder, "_resolve_pretrained_source", lambda cfg: ("file", str(file))
    )
    images = torch.randn(2, 3, *config.image_size)
    with torch.no_grad():
        expected = published.fc_norm(published.forward_features(images)[:, 0])
    from_hub = create.create_net(config, pretrained=True)
    from_file = create.create_net(config)
    create.load_backbone_weights(from_file, str(file))
    for net in (from_hub.eval(), from_file.eval()):
        with torch.no_grad():
            torch.testing.assert_close(net(images), expected)
    averaging = replace(config, backbone_kwargs={**config.backbone_kwargs, "global_pool": "avg"})
    with torch.no_grad():
        found = create.create_net(averaging, pretrained=True).eval()(images)
        torch.testing.assert_close(found, published(images))
