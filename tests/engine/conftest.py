from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from artifactnet.config import Config, load
from artifactnet.engine import score_tables

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
    engine = "artifactnet.engine"
    names = ["timm", *(f"{engine}.{name}" for name in ("benchmark_memory", "score_pixels"))]
    multiprocessing.set_forkserver_preload(names)
    context = multiprocessing.get_context("forkserver")
    for owner in (multiprocessing, score_tables):  # one calls it by its module, one by its name
        monkeypatch.setattr(owner, "get_context", lambda method: context)
