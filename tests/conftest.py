"""What holds for every test."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from artifactnet.benchmarks.xaigd import tables
from artifactnet.config import AttentionConfig, Config, ModelConfig, SegmentationConfig, load
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ModelOutput

# tiny models; under xdist every core has its process, and more threads would wait for one another
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that a test starts
torch.set_num_threads(1)
cv2.setNumThreads(1)


TINY = """
model:
  backbone: vit_tiny_patch16_224
  backbone_kwargs: {embed_dim: 32, depth: 2, num_heads: 2}
  image_size: [32, 32]
  pretrained: false
loss: {alignment: {weight: 1.0}}
data: {demo_train: 8, demo_val: 4, demo_test: 4, demo_size: 48, batch_size: 4, check: counts}
optim: {lr: 1e-3}
train: {epochs: 2, device: cpu, picture_every: 0, tensorboard: false, log_every: 1}
"""


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., Config]:
    """Config of a run of a second inside a folder, with overrides."""

    def make(folder: Path, *overrides: str) -> Config:
        path = folder / "tiny.yaml"
        path.write_text(TINY)
        return load(path, [f"out={folder / 'runs'}", *overrides])

    return make


@pytest.fixture
def tiny(tmp_path: Path, tiny_config: Callable[..., Config]) -> Callable[..., Config]:
    """`tiny_config` in the test's own folder."""
    return lambda *overrides: tiny_config(tmp_path, *overrides)


@pytest.fixture
def preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh processes descend from one that has nothing but imports, which take seconds each.

    It is started once and has nothing of the tests' own process.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return  # each one imports what it needs
    names = ["timm", "perf.alignment_step", "artifactnet.benchmarks.xaigd.pixels"]
    multiprocessing.set_forkserver_preload(names)
    context = multiprocessing.get_context("forkserver")
    for owner in (multiprocessing, tables):  # one calls it by its module, one by its name
        monkeypatch.setattr(owner, "get_context", lambda method: context)


CATEGORY_OF_CHANNEL = (1, 2, 7)  # red: textures, green: edges & shapes, blue: physics


class PixelModel(nn.Module):
    """A 1x1 convolution: each category's logit is a function of the pixel's own colour."""

    def __init__(self, size, labels="softmax", slope=40.0, categories=None, **config):
        super().__init__()
        self.config = ModelConfig(
            image_size=list(size),
            segmentation=SegmentationConfig(head="upernet", labels=labels, categories=categories),
            **config,
        )
        self.image_size = tuple(size)
        self.mean, self.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        self.notices = ()
        self.backbone = SimpleNamespace(patch_size=None)
        self.has_segmentation, self.has_attention, self.has_heatmap = True, False, False
        self.known_categories = (1, 2, 3, 4, 5, 6, 7)
        background = 1 if labels == "softmax" else 0
        self.conv = nn.Conv2d(3, 7 + background, 1)
        nn.init.zeros_(self.conv.weight)
        nn.init.constant_(self.conv.bias, -slope / 2)
        if background:
            self.conv.bias.data[0] = 0.0
        for channel, index in enumerate(CATEGORY_OF_CHANNEL):
            self.conv.weight.data[index - 1 + background, channel] = slope
        self.calls: list[tuple[int, bool, bool]] = []  # batch, attention, segmentation

    def forward(self, images, *, attention=False, segmentation=False, heatmap=False):
        assert not heatmap  # it has none, and says so
        self.calls.append((len(images), attention, segmentation))
        output = ModelOutput(images.mean((1, 2, 3)))
        if segmentation:
            output.segmentation = self.conv(images)
        return output


@pytest.fixture
def pixel_model():
    return PixelModel


@pytest.fixture
def segmenter():
    """Builder of a real ArtifactNet with UPerNet, of a few thousand random weights."""

    def build(backbone="vit", size=(32, 48), labels="softmax", method="rollout", **config):
        names = {"vit": "vit_tiny_patch16_224", "convnext": "convnext_atto"}
        kwargs = {
            "vit": {"embed_dim": 24, "depth": 4, "num_heads": 2},
            "convnext": {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1)},
        }
        categories = config.pop("categories", None)
        torch.manual_seed(0)
        model = ArtifactNet(
            ModelConfig(
                backbone=names[backbone],
                backbone_kwargs=kwargs[backbone],
                image_size=list(size),
                pretrained="false",
                attention=AttentionConfig(method=method),
                segmentation=SegmentationConfig(
                    head="upernet",
                    channels=8,
                    auxiliary_channels=8,
                    labels=labels,
                    categories=categories,
                ),
                **config,
            )
        )
        # untrained, the head would answer almost the same everywhere
        with torch.no_grad():
            logits = model.eval()(torch.randn(1, 3, *size), segmentation=True).segmentation
            model.segmentation.main.conv_seg.weight.mul_(2 / logits.std((0, 2, 3)).mean())
        return model.eval()

    return build


@pytest.fixture
def noise():
    """Pixels that never repeat."""

    def make(height=40, width=60, seed=0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return make


@pytest.fixture
def painted():
    """Black picture with coloured boxes: (channel, top, left, bottom, right) each."""

    def make(*boxes, size=(32, 32)) -> np.ndarray:
        pixels = np.zeros((*size, 3), np.uint8)
        for channel, top, left, bottom, right in boxes:
            pixels[top:bottom, left:right, channel] = 255
        return pixels

    return make


@pytest.fixture
def put():
    """Write pixels to a file, with its folders."""

    def write(pixels, path) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return str(path)

    return write
