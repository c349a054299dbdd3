"""Runs with segmentation heads: the five experiments of X-AIGD Sec. 5 in miniature."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from artifactnet import load_model
from artifactnet.config import Config, ConfigError, load
from artifactnet.evaluation.evaluate import evaluate_run
from artifactnet.models import checkpoint
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.runs import run_folder
from artifactnet.training import components
from artifactnet.training.trainer import train_detector
from artifactnet.types import ArtifactNetError

SWIN = """
model:
  backbone: swin_tiny_patch4_window7_224
  backbone_kwargs: {embed_dim: 8, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2], window_size: 4}
  image_size: [64, 64]
  pretrained: false
  segmentation: {head: upernet, channels: 8, auxiliary_channels: 8}
loss: {segmentation: {weight: 1.0}, alignment: {weight: 0}}
data: {demo_train: 8, demo_val: 4, demo_test: 4, demo_size: 64, batch_size: 4, check: counts}
optim: {lr: 1e-3}
train: {epochs: 1, device: cpu, picture_every: 1, pictures: 2, tensorboard: false, log_every: 1}
"""


def config(folder: Path, *overrides: str) -> Config:
    path = folder / "swin.yaml"
    path.write_text(SWIN)
    return load(path, [f"out={folder / 'runs'}", *overrides])


@pytest.fixture(scope="module")
def pad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learns masks alone."""
    folder = tmp_path_factory.mktemp("pad")
    train_detector(config(folder, "name=pad", "loss.bce=0", "train.monitor=mask_iou"))
    return folder / "runs" / "pad"


def best(run: Path) -> ArtifactNet:
    return checkpoint.load_checkpoint(run / run_folder.BEST)


def test_masks_alone_leave_the_verdict_untrained_and_say_so(pad: Path) -> None:
    results = json.loads((pad / "results.json").read_text())
    everything = results["masks"]["all"]
    assert everything["evaluated_images"] == 4
    truth = everything["category-agnostic"]
    assert truth["tp"] + truth["fn"] > 0
    assert components.UNTRAINED["head"] in best(pad).notices
    assert components.UNTRAINED["head"] in (pad / "results.md").read_text()
    assert components.UNTRAINED["head"] in load_model(pad, device="cpu").warnings
    found = results["training"]["best_validation"]
    assert found["mask_iou"] == pytest.approx(2 * found["joint"] - found["balanced_accuracy"])
    assert list((pad / "pictures").iterdir())
    assert list((pad.parent / ".cache").glob("class_pixels-*.json"))
    assert evaluate_run(pad)["masks"] == results["masks"]


def test_the_model_knows_which_categories_it_was_taught(tmp_path: Path) -> None:
    options = ("data.demo_categories=[low-level-symbol]", "train.picture_every=0")
    result = train_detector(config(tmp_path, *options))
    model = best(result.run_dir)
    assert model.config.segmentation.categories == ["low-level-symbol"]
    assert model.known_categories == (3,)
    saved = load(result.run_dir / run_folder.CONFIG)
    assert saved.model.segmentation.categories is None  # the run's config is what was asked for
    again = train_detector(config(tmp_path, *options, "resume=true", "train.epochs=2"))
    assert again.results["training"]["epochs"] == 2


HEADLESS = "model.segmentation.head=none"
ALIGNED = ("loss.alignment.weight=1", "model.attention.method=grad_cam")
UNTAUGHT = "loss.segmentation.weight=0"


def test_linear_probing_moves_the_verdict_alone(pad: Path, tmp_path: Path) -> None:
    options = ("freeze=[backbone,segmentation]", "optim.lr=0.1", "optim.schedule=constant")
    result = train_detector(config(tmp_path, f"init_from={pad}", UNTAUGHT, *options))
    before, after = best(pad).state_dict(), best(result.run_dir).state_dict()
    assert before.keys() == after.keys()
    moved = {
        name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])
    }
    assert moved == {"head"}  # batch statistics stay too
    assert not set(components.UNTRAINED.values()) & set(best(result.run_dir).notices)
    assert result.results["masks"]["all"]["evaluated_images"] == 4


def test_fine_tuning_leaves_the_heads_out(pad: Path, tmp_path: Path) -> None:
    options = (HEADLESS, "train.monitor=balanced_accuracy")
    result = train_detector(config(tmp_path, f"init_from={pad}", UNTAUGHT, *options))
    assert result.results["masks"] is None
    assert "no segmentation head" in (result.run_dir / "results.md").read_text()
    model = best(result.run_dir)
    assert not any(name.startswith("segmentation.") for name in model.state_dict())
    assert components.UNTRAINED["head"] not in model.notices


def test_masks_of_an_earlier_backbone_are_announced(pad: Path, tmp_path: Path) -> None:
    result = train_detector(config(tmp_path, f"init_from={pad}", UNTAUGHT))
    assert components.OUTDATED["segmentation"] in best(result.run_dir).notices


def test_both_tasks_with_sigmoids_evidence_and_an_aligned_map(tmp_path: Path) -> None:
    head = ("model.segmentation.labels=sigmoid", "model.segmentation.evidence=true")
    options = (*ALIGNED, "train.monitor=joint")
    result = train_detector(config(tmp_path, *head, *options))
    found = result.results["training"]["best_validation"]
    assert {"bce", "segmentation", "alignment", "mask_iou", "map_iou", "joint"} <= found.keys()
    assert result.results["heatmap"]["evaluated_images"] == 4
    assert result.results["masks"] is not None


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (
            ["model.segmentation.categories=[hands]"],
            ConfigError,
            "model.segmentation.categories has unknown 'hands'; known: low-level-texture",
        ),
        (["data.batch_size=1"], ConfigError, "data.batch_size must be at least 2"),
        (["freeze=[neck]"], ConfigError, "parts of the model: backbone, head, segmentation"),
        (["freeze=[backbone,head,segmentation]"], ArtifactNetError, "nothing learns"),
        (["freeze=[segmentation]", HEADLESS, UNTAUGHT], ArtifactNetError, "has no segmentation"),
        ([HEADLESS], ConfigError, "segmentation.weight above 0 needs .*segmentation.head=upernet"),
        ([ALIGNED[0]], ArtifactNetError, "rollout does not apply; .*method=grad_cam"),
        ([*ALIGNED, "model.image_size=[72,72]"], ArtifactNetError, "whole cells of 32"),
    ],
)
def test_what_cannot_be_trained(
    tmp_path: Path, overrides: list[str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match="(?s)" + words):
        train_detector(config(tmp_path, *overrides))
    assert not (tmp_path / "runs" / "swin").exists()


def test_masks_cannot_be_learned_from_data_without_any(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for label in ("real", "fake"):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for number in range(4):
                color = (number * 20, len(split) * 9, 90 if label == "real" else 200)
                Image.new("RGB", (64, 64), color).save(folder / f"{split}{number}.png")
    with pytest.raises(ArtifactNetError, match="no training image has an artifact mask"):
        train_detector(config(tmp_path, "data.name=folder", f"data.root={tmp_path / 'data'}"))
