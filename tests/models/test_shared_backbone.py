"""Saved models without what equals published weights: their size, their answers, their errors."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import tiny
from torch import nn

from artifactnet.cli import main
from artifactnet.config import LoraConfig, ModelConfig
from artifactnet.exporters.pack import pack_model
from artifactnet.models import packaged
from artifactnet.models.checkpoint import init_weights, load_checkpoint, save_checkpoint
from artifactnet.models.create import create_model
from artifactnet.models.shared_backbone import _low_rank, complete, find_backbones, leave_out
from artifactnet.types import ArtifactNetError

VIT = "test_vit"
RANK = 2


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The package, with published weights of a small ViT."""
    folder = tmp_path / "package"
    folder.mkdir()
    net = tiny(VIT, kwargs={}, size=(64, 64), seed=7).backbone.net
    file = folder / "small.safetensors"
    save_file({k: v.half() for k, v in net.state_dict().items()}, file, {"format": "pt"})
    monkeypatch.setattr(packaged, "FOLDER", folder)
    weights = packaged.PublishedWeights("small", sha256(file))
    monkeypatch.setitem(packaged.PUBLISHED, VIT, weights)
    monkeypatch.chdir(tmp_path)
    return weights


def started(**config):
    """A new model on the published weights."""
    return create_model(ModelConfig(backbone=VIT, image_size=[32, 32], **config))


def tuned():
    """A detector whose last block and position embeddings were trained."""
    model = started()
    torch.manual_seed(3)
    with torch.no_grad():
        model.backbone.net.pos_embed += 0.1
        for weight in model.backbone.net.blocks[-1].parameters():
            weight += 0.1 * torch.randn_like(weight)
        nn.init.normal_(model.head.weight)
    return model


def with_adapters():
    """A detector that was trained by low-rank adapters, saved as every model is: merged."""
    model = started(lora=LoraConfig(rank=RANK, target_modules=["qkv", "proj"]))
    torch.manual_seed(4)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight += 0.2 * torch.randn_like(weight)
    return model


def stored(path) -> dict[str, torch.Tensor]:
    return load_file(path)


def facts(path) -> dict[str, str]:
    with safe_open(path, framework="pt") as handle:
        return dict(handle.metadata())


def rewritten(path, **changes) -> None:
    save_file(stored(path), path, facts(path) | changes)


def test_equal_tensors_are_left_out_and_come_back(published):
    save_checkpoint(tuned(), "run/model.safetensors", {"epoch": 2})
    whole = pack_model("run", "whole.safetensors")
    small = pack_model("run", "small.safetensors", share_backbone=True)
    assert small.size < whole.size / 3
    kept = {k for k in stored("small.safetensors") if k.startswith("backbone.")}
    last = len(load_checkpoint("whole.safetensors").backbone.net.blocks) - 1
    expected = {k for k in stored("whole.safetensors") if f".blocks.{last}." in k}
    assert kept == expected | {"backbone.net.pos_embed"}
    named = {"name": "small", "sha256": published.sha256}
    assert json.loads(facts("small.safetensors")["backbones"]) == {"backbone.net.": named}
    one, other = (load_checkpoint(f"{x}.safetensors").state_dict() for x in ("whole", "small"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_merged_adapters_are_stored_as_two_factors(published):
    pytest.importorskip("peft")
    save_checkpoint(with_adapters(), "run/model.safetensors", {"epoch": 2})
    merged = load_checkpoint("run/model.safetensors").state_dict()
    small = pack_model("run", "small.safetensors", share_backbone=True)
    assert small.size < small.original_size / 4
    tensors = stored("small.safetensors")
    name = "backbone.net.blocks.0.attn.qkv.weight"
    assert name not in tensors
    rows, columns = merged[name].shape
    assert tensors[f"{name}.lora_B"].shape == (rows, RANK)
    assert tensors[f"{name}.lora_A"].shape == (RANK, columns)
    found = load_checkpoint("small.safetensors")
    assert not found.config.lora.rank  # it loads without peft
    for key, value in found.state_dict().items():
        torch.testing.assert_close(value, merged[key], atol=1e-3, rtol=1e-3)
    base = load_file(published.path)["blocks.0.attn.qkv.weight"].float()
    learned, kept = merged[name] - base, found.state_dict()[name] - base
    assert float(learned.norm()) > 0.01  # adapters did something,
    assert float((kept - learned).norm() / learned.norm()) < 1e-3  # and it is all there


def test_low_rank_by_hand():
    rng = np.random.default_rng(0)
    base = torch.from_numpy(rng.normal(size=(12, 20)).astype(np.float32))
    change = torch.from_numpy(rng.normal(size=(12, 3)) @ rng.normal(size=(3, 20))).float()
    b, a = _low_rank(base + change, base)
    assert (b.shape, a.shape) == ((12, 3), (3, 20))
    torch.testing.assert_close(b @ a, change, atol=1e-4, rtol=1e-4)
    # one weight of full rank: as large in two factors as on its own
    assert _low_rank(base + torch.from_numpy(rng.normal(size=(12, 20))).float(), base) is None
    assert _low_rank(base[0] + 1, base[0]) is None  # a vector has no factors
    # a change of every weight by a hundredth of the usual one is learned, not rounding
    fine = torch.from_numpy(rng.choice([-0.01, 0.01], (12, 20))).float()
    base[0, 0] = 1000.0  # whose own rounding is larger than that
    assert _low_rank(base + fine, base) is None


def test_several_backbones_and_one_without_its_last_blocks(published):
    first, second = (tiny(VIT, kwargs={}, size=(64, 64), seed=7).backbone.net for _ in range(2))
    for net in (first, second):
        net.load_state_dict({k: v.float() for k, v in load_file(published.path).items()})
    del second.blocks[-1]
    second.blocks[0].mlp.fc1.bias.data += 1
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"net": first})})
    model["context"] = nn.ModuleDict({"net": second})
    found = find_backbones(model)
    assert found == {"backbone.net.": published, "context.net.": published}
    state = {k: v.half() for k, v in model.state_dict().items()}
    kept = leave_out(state, model, found)
    assert list(kept) == ["context.net.blocks.0.mlp.fc1.bias"]
    nets = {"backbone.net.": first, "context.net.": second}
    named = {k: {"name": "small", "sha256": published.sha256} for k in nets}
    full = complete(kept, nets, "m", named)
    assert full.keys() == state.keys()
    assert all(torch.equal(full[k].half(), state[k]) for k in state)


def test_other_models_start_from_one(published):
    save_checkpoint(tuned(), "run/model.safetensors")
    pack_model("run", "small.safetensors", share_backbone=True)
    expected = load_checkpoint("small.safetensors").state_dict()
    weights = create_model(
        ModelConfig(backbone=VIT, image_size=[32, 32]), weights="small.safetensors"
    )
    fresh = tiny(VIT, kwargs={}, size=(32, 32), seed=99)
    assert init_weights(fresh, "small.safetensors") == []
    for model in (weights, fresh):
        for name, value in model.backbone.state_dict().items():
            assert torch.equal(value, expected[f"backbone.{name}"]), name


# --- errors -------------------------------------------------------------------------------


@pytest.fixture
def small(published):
    save_checkpoint(tuned(), "run/model.safetensors")
    pack_model("run", "small.safetensors", share_backbone=True)
    return "small.safetensors"


def told(capsys, *arguments) -> str:
    assert main([str(a) for a in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_missing_backbone(small, published):
    published.path.unlink()
    with pytest.raises(ArtifactNetError) as info:
        load_checkpoint(small)
    message = str(info.value)
    assert message.startswith("small.safetensors: holds only what differs from the backbone small")
    assert "missing from this installation; reinstall artifactnet" in message
    assert "\n" not in message


@pytest.mark.parametrize("position", [9, 500, -1])
def test_a_backbone_changed_by_one_byte(small, published, position):
    content = bytearray(published.path.read_bytes())
    content[position] ^= 1
    published.path.write_bytes(content)
    with pytest.raises(ArtifactNetError, match="small.*: not the published file"):
        load_checkpoint(small)


@pytest.mark.parametrize(
    ("backbones", "message"),
    [
        ({"name": "huge", "sha256": "0"}, "backbone huge, which this version does not contain; up"),
        ({"name": "small", "sha256": "0" * 64}, "of another version of ArtifactNet"),
        ({"name": "small", "sha256": "0", "part": 1}, r"saved by a newer ArtifactNet .*'part'"),
        ({"name": "small"}, "the facts in the file are damaged"),
        ({"name": 3, "sha256": "0"}, "the facts in the file are damaged"),
    ],
)
def test_facts_that_do_not_fit(small, backbones, message):
    rewritten(small, backbones=json.dumps({"backbone.net.": backbones}))
    with pytest.raises(ArtifactNetError, match=message):
        load_checkpoint(small)


def test_a_prefix_that_the_model_lacks(small, published):
    named = {"name": "small", "sha256": published.sha256}
    rewritten(small, backbones=json.dumps({"other.net.": named}))
    with pytest.raises(ArtifactNetError, match="leaves out other.net, which the model has not"):
        load_checkpoint(small)


def test_pack_without_a_published_backbone(published, capsys):
    save_checkpoint(tiny(), "m.safetensors")
    line = told(capsys, "pack", "m.safetensors", "--out", "n.safetensors", "--share-backbone")
    assert "m.safetensors: the package has no published weights of vit_tiny_patch16_224" in line
    assert "pack the whole model instead" in line


def test_pack_of_a_backbone_with_nothing_in_common(published, capsys):
    save_checkpoint(tiny(VIT, kwargs={}, size=(32, 32), seed=1), "m.safetensors")
    with torch.no_grad():
        model = load_checkpoint("m.safetensors")
        for weight in model.parameters():
            weight += torch.randn_like(weight)
    save_checkpoint(model, "m.safetensors")
    line = told(capsys, "pack", "m.safetensors", "--out", "n.safetensors", "--share-backbone")
    assert "no tensor of backbone.net equals the published small" in line


def test_what_a_backbone_said_of_itself_is_saved(published, monkeypatch):
    save_checkpoint(tuned(), "m.safetensors")
    expected = load_checkpoint("m.safetensors")
    monkeypatch.setattr("artifactnet.models.backbone.dry_run", SimpleNamespace())  # not callable
    found = load_checkpoint("m.safetensors")
    for name in ("num_features", "level_channels", "no_pyramid", "map_grid", "no_map", "tried"):
        assert getattr(found.backbone, name) == getattr(expected.backbone, name)
    assert found.grid == expected.grid
    rewritten("m.safetensors", tried=json.dumps({"num_features": 3}))
    with pytest.raises(ArtifactNetError, match="the facts in the file are damaged"):
        load_checkpoint("m.safetensors")
