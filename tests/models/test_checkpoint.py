import errno
import json
import socket

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_models import tiny

from artifactnet.config import AttentionConfig, LoraConfig
from artifactnet.models import checkpoint
from artifactnet.models.checkpoint import init_weights, load_checkpoint, save_checkpoint
from artifactnet.models.metadata import read_metadata
from artifactnet.types import ArtifactNetError

LORA = LoraConfig(rank=2, target_modules=["qkv", "fc1"])


def probe(model):
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        return model(torch.randn(2, 3, *model.image_size, generator=generator), attention=True)


def same(one, other):
    return torch.equal(one.logit, other.logit) and torch.equal(one.heatmap, other.heatmap)


def test_a_saved_model_comes_back_to_the_bit(tmp_path):
    attention = AttentionConfig(head_fusion="max", normalization="max")
    model = tiny(attention=attention, stem="conv", stem_width=8, threshold=0.3)
    model.notices = ("started from RANDOM weights",)
    path = tmp_path / "model.safetensors"
    save_checkpoint(model, path, {"epoch": 3})
    loaded = load_checkpoint(path)
    assert same(probe(loaded), probe(model))
    assert loaded.notices == model.notices
    assert loaded.config.threshold == 0.3
    assert loaded.config.attention == model.config.attention
    assert (loaded.mean, loaded.std) == (model.mean, model.std)
    assert read_metadata(path)["extra"] == {"epoch": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_adapters_are_merged_on_saving(tmp_path):
    pytest.importorskip("peft")
    model = tiny(lora=LORA)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    before = probe(model)
    path = tmp_path / "model.safetensors"
    save_checkpoint(model, path)
    assert same(probe(model), before)  # saving left the model as it was
    loaded = load_checkpoint(path)
    assert loaded.config.lora.rank == 0
    assert not any("lora" in key for key in loaded.state_dict())
    torch.testing.assert_close(probe(loaded).logit, before.logit, atol=1e-5, rtol=1e-4)
    plain = tiny()
    assert not torch.allclose(probe(plain).logit, before.logit)


def test_lora_trains_adapters_and_head_alone():
    pytest.importorskip("peft")
    trainable = [n for n, p in tiny(lora=LORA).named_parameters() if p.requires_grad]
    assert len([n for n in trainable if "lora_" in n]) == 3 * 2 * 2
    assert [n for n in trainable if "lora_" not in n] == ["head.weight", "head.bias"]
    with pytest.raises(ArtifactNetError, match=r"model\.lora\.target_modules"):
        tiny(lora=LoraConfig(rank=2, target_modules=["no_such_layer"]))


def test_init_from_takes_weights_also_under_adapters(tmp_path):
    pytest.importorskip("peft")
    source = tiny(seed=5)
    path = tmp_path / "model.safetensors"
    save_checkpoint(source, path)
    for target in (tiny(seed=6), tiny(seed=6, lora=LORA)):
        assert not same(probe(target), probe(source))
        init_weights(target, path)
        torch.testing.assert_close(probe(target).logit, probe(source).logit)


def test_another_architecture_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(tiny(), path)
    other = tiny(kwargs={"embed_dim": 24, "depth": 2, "num_heads": 2})
    with pytest.raises(ArtifactNetError, match=r"init_from .*other architecture.*blocks\.2"):
        init_weights(other, path)
    wider = tiny(kwargs={"embed_dim": 32, "depth": 3, "num_heads": 2})
    with pytest.raises(ArtifactNetError, match="of another shape"):
        init_weights(wider, path)


def rewrite(path, change_state=None, **change_metadata):
    with safe_open(path, framework="pt") as handle:
        metadata = handle.metadata()
        state = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    if change_state:
        change_state(state)
    save_file(state, path, metadata={**metadata, **change_metadata})


def test_files_that_are_not_ours_or_not_whole(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(ArtifactNetError, match="no such model file"):
        load_checkpoint(path)
    save_checkpoint(tiny(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactNetError, match="not a readable safetensors file"):
        load_checkpoint(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ArtifactNetError, match="not a model saved by ArtifactNet"):
        load_checkpoint(path)
    path.write_bytes(whole)
    rewrite(path, lambda state: state.pop("head.bias"))
    with pytest.raises(ArtifactNetError, match=r"do not fit.*missing \['head.bias'\]"):
        load_checkpoint(path)
    path.write_bytes(whole)
    rewrite(path, model=json.dumps({"backbone": "vit_tiny_patch16_224", "from_the_future": 1}))
    with pytest.raises(ArtifactNetError, match="newer ArtifactNet .*from_the_future"):
        load_checkpoint(path)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_checkpoint(tiny(seed=1), path)
    old = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(ArtifactNetError, match="could not be saved.*No space left"):
        save_checkpoint(tiny(seed=2), path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"backbone": "hf-hub:owner/name"}, "timm has no model named"),
        ({"backbone": "local-dir:FOLDER"}, "timm has no model named"),
        ({"context": {"backbone": "hf-hub:owner/name"}}, "timm has no model named"),
        (
            {"backbone_kwargs": {"checkpoint_path": "FOLDER/trap.pth"}},
            "is no part of an architecture",
        ),
        ({"weights": "FOLDER/trap.pth", "pretrained": "true"}, None),
    ],
)
def test_a_file_of_a_stranger_opens_nothing_else(tmp_path, monkeypatch, facts, reason):
    """Neither a file of who loads it, nor the network."""

    def opened(*args, **kwargs):
        raise AssertionError(f"opened {args}")

    save_checkpoint(tiny(), tmp_path / "m.safetensors")
    (tmp_path / "trap.pth").write_bytes(b"")
    kept = read_metadata(tmp_path / "m.safetensors")["model"].backbone_kwargs
    facts = json.loads(json.dumps(facts).replace("FOLDER", str(tmp_path)))
    if "backbone_kwargs" in facts:
        facts["backbone_kwargs"] |= kept
    checkpoint.rewrite_facts(tmp_path / "m.safetensors", tmp_path / "m.safetensors", facts, {})
    for owner, name in ((torch, "load"), (socket.socket, "connect")):
        monkeypatch.setattr(owner, name, opened)
    if reason is None:
        assert load_checkpoint(tmp_path / "m.safetensors") is not None
    else:
        with pytest.raises(ArtifactNetError, match=reason):
            load_checkpoint(tmp_path / "m.safetensors")
