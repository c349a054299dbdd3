"""The temperature of a calibrated model divides its logit on every path, and nothing else."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_models import tiny

from artifactnet.config import AttentionConfig, HeatmapConfig, SegmentationConfig
from artifactnet.models.checkpoint import init_weights, load_checkpoint, save_checkpoint
from artifactnet.types import ArtifactNetError

DEEPER = {"embed_dim": 24, "depth": 4, "num_heads": 2}
SWIN = {
    "backbone": "swin_tiny_patch4_window7_224",
    "kwargs": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
}
PATHS = {
    "plain": ({}, {}),
    "rollout": ({}, {"attention": True}),
    "gradient rollout": (
        {"attention": AttentionConfig(method="gradient_rollout")},
        {"attention": True},
    ),
    "activation map": (
        {"attention": AttentionConfig(method="grad_cam"), **SWIN, "size": (64, 96)},
        {"attention": True},
    ),
    "decoder": (
        {"heatmap": HeatmapConfig(head="decoder", width=8), "kwargs": DEEPER},
        {"heatmap": True},
    ),
    "tiles": (
        {
            "heatmap": HeatmapConfig(head="mapper", width=16, tile=32, heads=2, tokens=2),
            "kwargs": DEEPER,
            "size": (64, 64),
        },
        {"heatmap": True},
    ),
    "evidence": (
        {"segmentation": SegmentationConfig("upernet", 8, 8, evidence=True), "kwargs": DEEPER},
        {"segmentation": True},
    ),
}


@pytest.mark.parametrize("path", PATHS)
def test_the_logit_alone_is_divided(path):
    options, asked = PATHS[path]
    one, other = tiny(**options), tiny(**options, temperature=2.5)
    images = torch.randn(2, 3, *one.image_size, generator=torch.Generator().manual_seed(1))
    before, after = one(images, **asked), other(images, **asked)
    torch.testing.assert_close(after.logit, before.logit / 2.5, rtol=0, atol=0)
    assert before.logit.abs().min() > 0
    for name in ("heatmap", "attention", "segmentation", "sigma", "score"):
        ours, theirs = getattr(before, name), getattr(after, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(theirs, ours, rtol=0, atol=0)


def test_gradients_pass_through_the_division():
    model = tiny(temperature=4.0)
    images = torch.randn(1, 3, *model.image_size)
    model(images).logit.sum().backward()
    scaled = model.head.weight.grad.clone()
    model.zero_grad()
    model.config.temperature = 1.0
    model(images).logit.sum().backward()
    torch.testing.assert_close(scaled, model.head.weight.grad / 4)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_temperatures(value):
    with pytest.raises(ArtifactNetError, match=r"model\.temperature must be a finite"):
        tiny(temperature=value)


def test_saved_and_loaded(tmp_path):
    model = tiny(temperature=1.7, fake_from=0.8, real_below=0.2)
    save_checkpoint(model, tmp_path / "m.safetensors")
    config = load_checkpoint(tmp_path / "m.safetensors").config
    assert (config.temperature, config.fake_from, config.real_below) == (1.7, 0.8, 0.2)


def test_a_file_from_before_there_was_a_temperature(tmp_path):
    """Its answers stay bit for bit."""
    model, path = tiny(), tmp_path / "m.safetensors"
    save_checkpoint(model, path)
    with safe_open(path, framework="pt") as handle:
        metadata = dict(handle.metadata())
        state = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    config = json.loads(metadata["model"])
    for key in ("temperature", "fake_from", "real_below"):
        del config[key]
    save_file(state, path, metadata | {"model": json.dumps(config)})
    old = load_checkpoint(path)
    assert (old.config.temperature, old.config.limits) == (1.0, None)
    images = torch.randn(2, 3, *model.image_size)
    assert torch.equal(old(images).logit, model(images).logit)


def test_a_model_that_starts_from_a_calibrated_one_is_not_calibrated(tmp_path):
    save_checkpoint(
        tiny(temperature=3.0, fake_from=0.8, real_below=0.2), tmp_path / "m.safetensors"
    )
    fresh = tiny(seed=1)
    init_weights(fresh, tmp_path / "m.safetensors")
    assert (fresh.config.temperature, fresh.config.limits) == (1.0, None)
