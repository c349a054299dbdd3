"""What a rollout requires: standard attention in every block, and enough memory."""

import pytest
import torch
import torch.nn.functional as F
from tiny_models import TINY, tiny
from torch import nn

from artifactnet.config import AttentionConfig
from artifactnet.models.attention import requirements, tiles
from artifactnet.models.attention.requirements import free_memory
from artifactnet.models.backbone import why_no_rollout
from artifactnet.types import ArtifactNetError


def batch(model, count=2):
    return torch.randn(count, 3, *model.image_size, generator=torch.Generator().manual_seed(0))


class Windowed(nn.Module):
    """Attends within halves of the tokens."""

    def __init__(self, width):
        super().__init__()
        self.num_heads = 2
        self.proj = nn.Linear(width, width)

    def forward(self, x, **_):
        halves = x.view(x.shape[0] * 2, 1, x.shape[1] // 2, x.shape[2])
        return self.proj(F.scaled_dot_product_attention(halves, halves, halves).view_as(x))


class Linear(nn.Module):
    """Linear attention: no softmax, no call that could be watched."""

    def forward(self, x, **_):
        return x @ (x.mT @ x) / x.shape[1]


def replaced(attention, size=(32, 48)):
    model = tiny(size=size, kwargs={**TINY, "reg_tokens": 1})  # 2 + 6 tokens
    model.backbone.net.blocks[2].attn = attention
    return model


@pytest.mark.parametrize(
    ("attention", "words"),
    [
        (Windowed(24), r"block 2 \(Windowed\) attends from 4 to 4 of 8 tokens.*windowed"),
        (Linear(), r"block 2 \(Linear\) does not use standard fused attention.*linear"),
    ],
)
def test_a_block_of_another_form_is_named(attention, words):
    model = replaced(attention)
    with pytest.raises(ArtifactNetError, match=words):
        model.check_attention(batch(model))
    with pytest.raises(ArtifactNetError, match=words):  # also without the check
        model(batch(model), attention=True)


def test_attention_that_is_a_difference_of_two_is_refused():
    model = tiny(kwargs={**TINY, "attn_layer": "diff"})
    with pytest.raises(ArtifactNetError, match=r"block 0 \(DiffAttention\) attends 2 times"):
        model.check_attention(batch(model))


def test_gated_attention_is_refused():
    net = tiny().backbone.net
    assert why_no_rollout(net, "vit") is None
    net.blocks[1].attn.gate = nn.Linear(24, 24)
    assert why_no_rollout(net, "vit").startswith("block 1 (Attention) of vit gates")


def test_overflow_of_half_precision_is_named():
    model = tiny()
    with torch.no_grad():
        model.backbone.net.blocks[1].attn.qkv.weight.mul_(1e6)
    model.check_attention(batch(model))  # float32 holds it
    with pytest.raises(ArtifactNetError, match=r"block 0 .*\(q, float32\); are its weights"):
        model.check_attention(batch(model) * float("nan"))
    words = r"block 1 \(Attention\) gives values that are not finite \(q, float16\).*precision=bf16"
    with pytest.raises(ArtifactNetError, match=words), torch.autocast("cpu", dtype=torch.float16):
        model.check_attention(batch(model))


def test_tokens_dropped_in_training_are_refused():
    model = tiny(kwargs={**TINY, "patch_drop_rate": 0.5}).train()
    with pytest.raises(ArtifactNetError, match="3 blocks attend to 4 of 7 tokens.*patch_drop_rate"):
        model(batch(model), attention=True, create_graph=True)


@pytest.mark.parametrize(
    "options",
    [
        {"form": "stored"},
        {"head_fusion": "max"},
        {"discard_ratio": 0.5},
        {"method": "gradient_rollout", "second_order": True},
    ],
)
def test_matrices_that_cannot_fit_are_refused_before_the_first_step(monkeypatch, options):
    model = tiny(attention=AttentionConfig(**options))
    model.check_attention(batch(model))
    monkeypatch.setattr(requirements, "free_memory", lambda device: 1000)
    with pytest.raises(ArtifactNetError, match=r"7 x 7 tokens, 3 blocks, 2 heads and 2 images"):
        model.check_attention(batch(model))


def test_the_form_that_stores_nothing_is_not_refused(monkeypatch):
    monkeypatch.setattr(requirements, "free_memory", lambda device: 0)
    model = tiny()
    model.check_attention(batch(model))
    cam = AttentionConfig(method="grad_cam")
    model = tiny("resnet18", size=(64, 64), kwargs={}, attention=cam)
    model.check_attention(batch(model))


def test_first_order_needs_room_for_one_matrix_per_block(monkeypatch):
    model = tiny(attention=AttentionConfig(method="gradient_rollout", second_order=False))
    needed = 2 * 3 * 49 * 4
    monkeypatch.setattr(requirements, "free_memory", lambda device: needed)
    model.check_attention(batch(model))
    monkeypatch.setattr(requirements, "free_memory", lambda device: needed - 1)
    with pytest.raises(ArtifactNetError, match=r"blocks 0 to 2 \(Attention\).*1 heads"):
        model.check_attention(batch(model))


def test_a_row_of_tokens_beyond_a_tile_is_refused(monkeypatch):
    monkeypatch.setattr(tiles, "tile_bytes", lambda device: 24)
    model = tiny()
    words = r"blocks 0 to 2 \(Attention\): one row of 7 tokens .*image_size"
    with pytest.raises(ArtifactNetError, match=words):
        model.check_attention(batch(model))


def test_the_check_leaves_the_model_as_it_was():
    model = tiny().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    model.check_attention(batch(model))
    assert model.training
    assert all(m.training for m in model.modules())
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value)


CPU = torch.device("cpu")
MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\n"
MAX = "9223372036854771712"  # what the first kind of cgroup says where there is no limit


KERNEL_3_13 = "MemTotal: 1000 kB\n"  # kernels before 3.14 do not say what is available
CACHE = "anon 1000\nfile 7000\ninactive_file 5000\nactive_file 2000\n"
CHILDREN = "cache 7000\ninactive_file 40\ntotal_cache 7000\ntotal_inactive_file 5000\n"
UNLIMITED = {"limit": MAX, "used": "9500\n", "stat": "total_inactive_file 0\n"}


@pytest.mark.parametrize(
    ("meminfo", "kind", "texts", "expected"),
    [
        (MEMINFO, "second", {}, 600 * 1024),
        (MEMINFO, "second", {"limit": "10000\n", "used": "9500\n", "stat": CACHE}, 5500),
        (MEMINFO, "first", {"limit": "10000\n", "used": "9500\n", "stat": CHILDREN}, 5500),
        (MEMINFO, "second", {"limit": str(1 << 30), "used": "0", "stat": CACHE}, 600 * 1024),
        (MEMINFO, "second", {"limit": "700000", "used": "200000"}, 500_000),
        (MEMINFO, "second", {"limit": "700000", "used": "700001"}, 0),  # lowered below the use
        (MEMINFO, "second", {"limit": "max\n", "used": "9500\n", "stat": CACHE}, 600 * 1024),
        (MEMINFO, "first", UNLIMITED, 600 * 1024),
        (MEMINFO, "second", {"limit": "10\n"}, 600 * 1024),
        (None, "second", {}, None),
        (KERNEL_3_13, "second", {}, None),
        (KERNEL_3_13, "second", {"limit": "300", "used": "100", "stat": "anon 100\n"}, 200),
    ],
)
def test_memory_of_a_system_and_its_container(
    tmp_path, monkeypatch, meminfo, kind, texts, expected
):
    names = ("limit", "used", "stat")
    containers = [
        requirements._Container(*(tmp_path / f"{each}.{name}" for name in names), old.cache)
        for each, old in zip(("second", "first"), requirements._CONTAINERS, strict=True)
    ]
    monkeypatch.setattr(requirements, "_SYSTEM", tmp_path / "meminfo")
    monkeypatch.setattr(requirements, "_CONTAINERS", containers)
    if meminfo is not None:
        (tmp_path / "meminfo").write_text(meminfo)
    for name, text in texts.items():
        (tmp_path / f"{kind}.{name}").write_text(text)
    assert free_memory(CPU) == expected


def test_a_gpu_also_has_what_pytorch_holds_and_does_not_use(monkeypatch):
    devices = []

    def returns(value):
        return lambda device: devices.append(device) or value

    monkeypatch.setattr(torch.cuda, "mem_get_info", returns((5000, 9000)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", returns(700))
    monkeypatch.setattr(torch.cuda, "memory_allocated", returns(300))
    gpu = torch.device("cuda", 1)
    assert free_memory(gpu) == 5400
    assert devices == [gpu] * 3
