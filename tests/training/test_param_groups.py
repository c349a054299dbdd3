import pytest
from tiny_models import tiny

from artifactnet.config import LoraConfig, OptimConfig
from artifactnet.training.optim import parameter_groups


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


@pytest.mark.parametrize(
    ("name", "kwargs", "first", "last"),
    [
        (
            "swin_tiny_patch4_window7_224",
            {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 1, 2, 2)},
            "layers.0.blocks.0.mlp.fc1.weight",
            "layers.3.blocks.0.mlp.fc1.weight",
        ),
        (
            "convnext_atto",
            {},
            "stages.0.blocks.1.mlp.fc1.weight",
            "stages.3.blocks.0.mlp.fc1.weight",
        ),
        ("resnet18", {}, "layer1.0.conv1.weight", "layer4.1.conv2.weight"),
    ],
)
def test_layer_decay_goes_by_stages_where_there_is_a_pyramid(name, kwargs, first, last):
    model = tiny(name, size=(64, 64), kwargs=kwargs)
    groups = parameter_groups(model, OptimConfig(lr=1.0, layer_decay=0.5, head_lr=3.0))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert rates[id(named[f"backbone.net.{last}"])] == 1.0
    assert rates[id(named[f"backbone.net.{first}"])] == 0.5**3
    assert rates[id(named["head.weight"])] == 3.0
    assert max(rates.values()) == 3.0
    assert min(rates.values()) == 0.5**4  # the stem
