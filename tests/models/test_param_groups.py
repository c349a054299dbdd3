import pytest
from tiny_models import tiny

from artifactnet.config import LoraConfig, OptimConfig
from artifactnet.models.param_groups import parameter_groups


def settings_of(model, optim):
    """Parameter name -> (lr, weight decay)."""
    names = {id(p): n for n, p in model.named_parameters()}
    out = {}
    for group in parameter_groups(model, optim):
        for parameter in group["params"]:
            assert names[id(parameter)] not in out
            out[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    return out


def test_every_parameter_once_and_decay_only_on_matrices():
    model = tiny()
    got = settings_of(model, OptimConfig(lr=1e-3, head_lr=1e-2, weight_decay=0.1))
    assert set(got) == {n for n, _ in model.named_parameters()}
    assert got["backbone.net.blocks.0.attn.qkv.weight"] == (1e-3, 0.1)
    assert got["backbone.net.blocks.0.attn.qkv.bias"] == (1e-3, 0.0)
    assert got["backbone.net.blocks.0.norm1.weight"] == (1e-3, 0.0)
    assert got["backbone.net.pos_embed"] == (1e-3, 0.0)
    assert got["backbone.net.cls_token"] == (1e-3, 0.0)
    assert got["head.weight"] == (1e-2, 0.1)
    assert got["head.bias"] == (1e-2, 0.0)


def test_layer_decay_counts_blocks_from_the_top():
    got = settings_of(tiny(), OptimConfig(lr=1.0, layer_decay=0.5))
    rates = [got[f"backbone.net.blocks.{i}.mlp.fc1.weight"][0] for i in range(3)]
    assert rates == pytest.approx([0.25, 0.5, 1.0])
    assert got["backbone.net.patch_embed.proj.weight"][0] == pytest.approx(0.125)
    assert got["backbone.net.norm.weight"][0] == 1.0
    assert got["head.weight"][0] == 1.0


def test_frozen_parameters_are_left_out():
    pytest.importorskip("peft")
    got = settings_of(tiny(lora=LoraConfig(rank=2)), OptimConfig())
    assert all("lora_" in name or name.startswith("head.") for name in got)
    assert any("lora_" in name for name in got)
