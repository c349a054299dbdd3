import urllib.error
import urllib.request
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tiny_models import TINY, tiny

from artifactnet.config import ModelConfig
from artifactnet.models import create
from artifactnet.models.create import create_model
from artifactnet.types import ArtifactNetError

TINY_VIT = Path(__file__).parents[3] / "shared" / "weights" / "tiny_vit_5m_mobilesam.safetensors"


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("no_hub")
def test_auto_goes_on_from_random_weights_with_a_notice(caplog):
    model = create_model(ModelConfig(backbone="deit_tiny_patch16_224", image_size=[32, 32]))
    (notice,) = model.notices
    assert "RANDOM weights" in notice
    assert "no route to host" in notice
    assert notice in caplog.text


@pytest.mark.usefixtures("no_hub")
def test_true_fails_with_what_to_do():
    with pytest.raises(ArtifactNetError, match=r"pretrained=true, but .* model\.weights=PATH"):
        create_model(ModelConfig(backbone="deit_tiny_patch16_224", pretrained="true"))


def test_auto_says_why_published_weights_cannot_fit():
    config = ModelConfig(backbone="vit_tiny_patch16_224", backbone_kwargs=TINY, image_size=[32, 32])
    assert "backbone_kwargs changes" in create_model(config).notices[0]
    config = ModelConfig(backbone="test_vit2", image_size=[32, 32], pretrained="auto")
    if timm.get_pretrained_cfg("test_vit2").hf_hub_id is None:
        assert "publishes no weights" in create_model(config).notices[0]


def test_false_is_silent():
    assert tiny().notices == ()


def test_a_hub_that_answers_with_an_error_page_is_there(monkeypatch):
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
    if suffix == "pth":
        torch.save(source.state_dict(), path)
    else:
        save_file(source.state_dict(), path)
    model = create_model(
        ModelConfig(backbone="deit_tiny_patch16_224", image_size=[32, 48], weights=str(path))
    )
    state = model.backbone.net.state_dict()
    assert all(torch.equal(state[k], v) for k, v in source.state_dict().items() if k in state)
    assert set(source.state_dict()) - set(state) == {"head.weight", "head.bias"}
    assert model.notices == ()


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a.weight": torch.zeros(2)}, path)
    config = ModelConfig(backbone="deit_tiny_patch16_224", image_size=[32, 32], weights=str(path))
    with pytest.raises(ArtifactNetError, match=r"other\.safetensors: other architecture.*missing"):
        create_model(config)
    config.weights = str(tmp_path / "absent.safetensors")
    with pytest.raises(ArtifactNetError, match=r"absent\.safetensors: cannot be read: \w+"):
        create_model(config)


def test_pickled_objects_are_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "evil.pth"
    torch.save({"state_dict": Trap()}, path)
    config = ModelConfig(backbone="deit_tiny_patch16_224", image_size=[32, 32], weights=str(path))
    with pytest.raises(ArtifactNetError, match="cannot be read"):
        create_model(config)
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not TINY_VIT.is_file(), reason=f"no pretrained TinyViT at {TINY_VIT}")
def test_real_half_precision_tiny_vit_weights_load():
    model = create_model(ModelConfig(backbone="tiny_vit_5m_224", weights=str(TINY_VIT)))
    name, value = next(iter(load_file(TINY_VIT).items()))
    assert torch.equal(model.backbone.net.state_dict()[name], value.float())
    assert model(torch.zeros(1, 3, 224, 224)).logit.isfinite().all()


def test_the_lead_of_meta_dinov2_layout_is_converted(tmp_path):
    """Meta's files carry a mask token that timm's model does not have."""
    source = timm.create_model("vit_small_patch14_dinov2", img_size=28, num_classes=0, depth=1)
    state = dict(source.state_dict())
    state["mask_token"] = torch.zeros(1, 384)
    path = tmp_path / "dinov2.pth"
    torch.save(state, path)
    net = timm.create_model(
        "vit_small_patch14_dinov2", img_size=42, num_classes=0, depth=1, dynamic_img_size=True
    )
    create.load_backbone_weights(net, str(path))
    key = "blocks.0.attn.qkv.weight"
    assert torch.equal(net.state_dict()[key], state[key])
    assert net.pos_embed.shape[1] == 1 + 9
