"""A working folder as the pages assume it: photographs, data, recipes of seconds, trained runs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import chat_server
import cluster_jobs
import hub_server
import numpy as np
import pytest
import timm
import tiny_fakexplainer
import tiny_heie_run
import tiny_mllm
import torch
from PIL import Image

import artifactnet
from artifactnet.config import Config, load
from artifactnet.models import packaged
from artifactnet.models.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = ROOT / "artifactnet" / "photographs" / "test"
NAMES = [path.stem for path in sorted((PHOTOGRAPHS / "real").iterdir())][:12]

# Recipes of ./configs go before those of the package: the pages' commands train in seconds.
BASE = """
model: {{pretrained: "false", image_size: [{size}, {size}], {model}}}
loss: {{{loss}}}
data: {{demo_train: 8, demo_val: 8, demo_test: 8, demo_size: 64, batch_size: 4, eval_batch_size: 4,
  val_fraction: 0.34, {data}}}
optim: {{lr: 1.0e-2, warmup: 0}}
train: {{epochs: 3, device: cpu, picture_every: 0, tensorboard: false, log_every: 1}}
"""
VIT = """backbone: vit_tiny_patch16_224,
  backbone_kwargs: {embed_dim: 32, depth: 2, num_heads: 2}"""
PYRAMID = """backbone: convnext_atto, attention: {method: grad_cam},
  backbone_kwargs: {depths: [1, 1, 1, 1], dims: [8, 16, 24, 32]}"""
UPERNET = "segmentation: {head: upernet, channels: 8, auxiliary_channels: 8}"
ALIGNED = BASE.format(size=32, model=VIT, loss="alignment: {weight: 1.0}", data="")
RECIPES = {
    "dinov2_align": ALIGNED,
    "toy_align": BASE.format(
        size=32, model=VIT, loss="alignment: {weight: 1.0}", data="demo_photos: classic"
    ),
    "swin_multitask": BASE.format(
        size=64, model=f"{PYRAMID}, {UPERNET}", loss="segmentation: {weight: 1.0}", data=""
    ),
    "student": BASE.format(
        size=64,
        model=f"{PYRAMID}, heatmap: {{head: decoder, width: 8}}",
        loss="alignment: {weight: 0}, heatmap: {focal: 1.0, laplace: 0.1}",
        data="",
    ),
}
# learns what `copy_pairs` makes: what a calibration needs is a model that tells images apart
RECIPES["easy"] = RECIPES["student"] + "name: easy\n"
RECIPES["student_nano"] = RECIPES["student_small"] = RECIPES["student"]
PACKAGED = {"artifactnet-small": "easy", "student-nano": "easy", "vit-aligned": "toy_align"}
# runs that pages open, by the recipe that makes one
RUNS = {
    "dinov2_align": "dinov2_align",
    "align_s0": "toy_align",
    "my_run": "dinov2_align",
    "swin_multitask": "swin_multitask",
    "student": "student",
    "teacher": "student",
}


def write_recipes(folder: Path) -> None:
    folder.mkdir()
    for name, text in RECIPES.items():
        (folder / f"{name}.yaml").write_text(text)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run of a recipe, HEIE or FakeXplainer, trained at the first call."""
    folder = tmp_path_factory.mktemp("trained")
    write_recipes(folder / "configs")
    done: dict[str, Path] = {}

    def config(name: str) -> Config:
        if name == "heie":
            return tiny_heie_run.config(folder, tiny_mllm.save_base(folder / "heie_base"))
        if name == "fakexplainer":
            corpus = tiny_fakexplainer.corpus("qwen2_5_vl")
            base = tiny_mllm.save_qwen(folder / "fakexplainer_base", corpus=corpus)
            (folder / "boxes").mkdir()
            manifest = tiny_fakexplainer.save_images(folder / "boxes")
            return tiny_fakexplainer.config(base, manifest, folder / "runs")
        own = []
        if name == "easy":
            copy_pairs(folder / "easy")
            own = ["data.name=folder", f"data.root={folder / 'easy'}", "train.epochs=8"]
        return load(folder / "configs" / f"{name}.yaml", [f"out={folder / 'runs'}", *own])

    def make(name: str) -> Path:
        if name not in done:
            done[name] = artifactnet.train(config(name)).run_dir
        return done[name]

    return make


@pytest.fixture
def workspace(
    tmp_path: Path,
    trained: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str, bool], None]:
    """Go to a folder that has what a text names; packaged models are tiny ones, or the real."""

    def prepare(text: str, real: bool) -> None:
        if not real:
            box = tmp_path / "box"
            box.mkdir()
            for name, recipe in PACKAGED.items():
                shutil.copy(trained(recipe) / "model.safetensors", box / f"{name}.safetensors")
                shutil.copy(packaged.FOLDER / f"{name}.md", box)
            for path in packaged.FOLDER.glob("dinov2-small.*"):
                (box / path.name).symlink_to(path)
            monkeypatch.setattr(packaged, "FOLDER", box)
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        write_recipes(Path("configs"))
        shutil.copy(PHOTOGRAPHS / "fake" / f"{NAMES[0]}.jpg", "photo.jpg")
        for number, name in enumerate(NAMES[:2], 1):
            Path("photos").mkdir(exist_ok=True)
            shutil.copy(PHOTOGRAPHS / "fake" / f"{name}.jpg", f"photos/{number}.jpg")
        if "my_images" in text:
            copy_pairs(Path("my_images"))
        if "images" in text:  # with masks beside, see docs/annotate.md
            copy("fake", "images", 2)
            copy("masks", "masks", 2)
        if "answers/predictions" in text:  # of `predict --engine ray`
            cluster_jobs.run_job(
                artifactnet.load_model("student-nano", "cpu"), ["photos"], "answers"
            )
        if "Synthbuster" in text:
            copy("fake", "Synthbuster/dalle3", 2)
        for name in set(re.findall(r"runs/(\w+)", text)):
            recipe = "fakexplainer" if name.startswith("fakexplainer") else RUNS.get(name, name)
            if f"name={name}" in text or f"train {name}" in text:
                continue  # the page makes it
            if name in RUNS or recipe in ("heie", "fakexplainer"):
                shutil.copytree(trained(recipe), Path("runs", name))
        for name in re.findall(r"\b(?:detector|resnet50)\.pth", text):
            net = timm.create_model("resnet50", num_classes=2)
            torch.save(net.state_dict(), name)

    return prepare


def copy(kind: str, target: str | Path, count: int = len(NAMES)) -> None:
    """Some of the package's test images of a kind."""
    Path(target).mkdir(parents=True, exist_ok=True)
    for name in NAMES[:count]:
        shutil.copy(PHOTOGRAPHS / kind / f"{name}.{'png' if kind == 'masks' else 'jpg'}", target)


def copy_pairs(folder: Path) -> None:
    """``real``, ``fake`` and ``masks``; the fakes have no green, which any model learns."""
    for kind in ("real", "fake", "masks"):
        copy(kind, folder / kind)
    for path in (folder / "fake").iterdir():
        pixels = np.array(Image.open(path))
        pixels[..., 1] = 0
        Image.fromarray(pixels).save(path, quality=92)


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The URL of a language model."""
    with chat_server.serving() as server:
        yield server.url


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of ``artifactnet serve``."""
    from serving_stubs import make_service, running

    with running(make_service()) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def hub(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A hub with ``owner/name`` at ``main`` and ``v1.0``."""
    cache = tmp_path_factory.mktemp("hub")
    with hub_server.served_hub(cache, monkeypatch) as server:
        monkeypatch.setenv("HF_TOKEN", server.token)
        model = load_checkpoint(ROOT / "artifactnet" / "weights" / "vit-aligned.safetensors")
        save_checkpoint(model, cache / "model.safetensors")
        content = (cache / "model.safetensors").read_bytes()
        repository = server.repositories["owner/name"] = hub_server.Repository()
        for branch in ("main", "v1.0"):
            repository.commit(branch, {"model.safetensors": content})
        yield
