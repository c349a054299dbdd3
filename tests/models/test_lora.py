"""Low-rank adapters: which layers get them, and one line where a name stands for none."""

import pytest
import torch
from tiny_models import tiny
from torch import nn

from artifactnet.config import LoraConfig
from artifactnet.models.lora import add_adapters, find_targets
from artifactnet.types import ArtifactNetError

pytest.importorskip("peft")

SWIN = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2}
CONVNEXT = {"dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
TINYVIT = {"embed_dims": [8, 8], "depths": [1, 1], "num_heads": [1, 1], "window_sizes": [2, 2]}
NETS = {
    "vit_tiny_patch16_224": None,
    "swin_tiny_patch4_window7_224": SWIN,
    "convnext_atto": CONVNEXT,
    "tiny_vit_5m_224": TINYVIT,
    "resnet10t": {},
}


def adapted(net: nn.Module) -> set[str]:
    """Paths of the layers of a net that have adapters."""
    return {name.partition(".lora_")[0] for name, _ in net.named_parameters() if ".lora_" in name}


def refusal(net: nn.Module, *targets: str) -> str:
    """The one line about targets that stand for nothing."""
    with pytest.raises(ArtifactNetError) as caught:
        add_adapters(net, LoraConfig(rank=2, target_modules=list(targets)))
    text = str(caught.value)
    assert text.startswith("model.lora.target_modules: ")
    assert len(text.splitlines()) == 1
    assert len(text) < 400
    return text


@pytest.mark.parametrize("stem", ["patch", "conv"])
@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_default_targets_are_layers_of_the_blocks_whatever_the_stem(backbone, stem):
    options = {"stem": stem, "stem_width": 8, "kwargs": NETS[backbone], "size": (64, 64)}
    net = tiny(backbone, lora=LoraConfig(rank=2), **options).backbone.net
    paths = adapted(net)
    assert not any(path.startswith("patch_embed") for path in paths)
    blocks = 3 if backbone.startswith("vit") else 4
    assert sorted({path.rpartition(".")[2] for path in paths}) == ["fc1", "fc2", "proj", "qkv"]
    assert len(paths) == 4 * blocks


@pytest.mark.parametrize(
    ("backbone", "targets", "count"),
    [
        ("vit_tiny_patch16_224", ["proj"], 3),
        ("vit_tiny_patch16_224", ["attn.proj", "mlp.fc1"], 6),
        ("vit_tiny_patch16_224", ["blocks.1.attn.qkv"], 1),
        ("vit_tiny_patch16_224", ["patch_embed.proj"], 1),
        ("vit_tiny_patch16_224", ["1.attn.qkv", "qkv", "qkv"], 3),
        ("swin_tiny_patch4_window7_224", ["reduction"], 3),
        ("convnext_atto", ["qkv", "proj", "fc1", "fc2"], 8),  # the default: those there are
        ("convnext_atto", ["stem.0"], 1),
        ("tiny_vit_5m_224", ["qkv", "fc1"], 2),
        ("resnet10t", ["conv2"], 4),
        ("resnet10t", ["layer1.0.conv1"], 1),
    ],
)
def test_names_and_paths(backbone, targets, count):
    net = tiny(backbone, kwargs=NETS[backbone], size=(64, 64)).backbone.net
    paths = find_targets(net, targets)
    assert len(paths) == count
    add_adapters(net, LoraConfig(rank=2, target_modules=targets))
    assert adapted(net) == set(paths)
    trainable = [name for name, value in net.named_parameters() if value.requires_grad]
    assert all(".lora_" in name for name in trainable)
    assert len(trainable) == 2 * count


@pytest.mark.parametrize(
    ("backbone", "targets", "words"),
    [
        ("vit_tiny_patch16_224", ["no_such"], ["'no_such'", "qkv, proj, fc1, fc2"]),
        ("vit_tiny_patch16_224", ["qkv", "q_proj"], ["'q_proj'", "qkv"]),
        ("vit_tiny_patch16_224", ["attn"], ["'attn' is a ", "takes no adapter", "qkv"]),
        ("vit_tiny_patch16_224", ["blocks.7.attn.qkv"], ["'blocks.7.attn.qkv'", "qkv"]),
        ("vit_tiny_patch16_224", ["oj"], ["'oj'"]),
        ("vit_tiny_patch16_224", [".*"], ["'.*'"]),
        ("vit_tiny_patch16_224", [""], ["''"]),
        ("resnet10t", ["qkv", "proj", "fc1", "fc2"], ["'qkv'", "conv1, conv2"]),
    ],
)
def test_a_target_that_stands_for_no_layer_is_one_line(backbone, targets, words):
    text = refusal(tiny(backbone, kwargs=NETS[backbone], size=(64, 64)).backbone.net, *targets)
    assert all(word in text for word in words)


def test_a_stem_that_takes_no_adapter_is_named_in_one_line():
    net = tiny(stem="conv", stem_width=8).backbone.net
    assert "ConvStem" in refusal(net, "patch_embed.proj")
    assert "Block" in refusal(net, "blocks.0")


def test_layers_outside_of_blocks_go_by_their_path():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.pool = nn.ModuleDict({"0": nn.Linear(2, 2)}), nn.Module()
            self.pool.kv = nn.Linear(2, 2)
            self.head = nn.Linear(2, 2)
            self.blocks = nn.ModuleList([nn.ModuleDict({"q": nn.Linear(2, 2)})])

    assert "pool.kv" in refusal(Net(), "kv")
    assert find_targets(Net(), ["pool.kv", "q"]) == ["pool.kv", "blocks.0.q"]
    assert find_targets(Net(), ["head"]) == ["head"]  # its whole path


def test_what_peft_says_on_many_lines_is_one(monkeypatch):
    import peft

    def refuse(*args):
        raise ValueError("no\n  (layers): Sequential(\n" + "    (0): Conv2d()\n" * 50)

    monkeypatch.setattr(peft, "inject_adapter_in_model", refuse)
    assert "no (layers): Sequential( (0)" in refusal(tiny().backbone.net, "qkv")


def test_adapters_start_as_nothing_and_learn():
    model, plain = (
        tiny(stem="conv", stem_width=8, lora=LoraConfig(rank=2)),
        tiny(stem="conv", stem_width=8),
    )
    images = torch.rand(2, 3, 32, 48)
    torch.testing.assert_close(model(images).logit, plain(images).logit)
    model(images).logit.sum().backward()
    grown = [n for n, p in model.backbone.net.named_parameters() if p.grad is not None]
    assert grown
    assert all(".lora_" in name for name in grown)
