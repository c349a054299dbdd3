"""Runs with a heatmap head, from annotation alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from artifactnet import load_model
from artifactnet.config import Config, ConfigError, load
from artifactnet.data.converters import demo
from artifactnet.models import checkpoint
from artifactnet.runs import run_folder
from artifactnet.training.trainer import train_detector

BASE = """
model:
  backbone: test_convnext
  image_size: [64, 64]
  pretrained: false
  heatmap: {head: decoder, width: 16, tile: 32, max_tiles: 4, heads: 2}
loss:
  alignment: {weight: 0}
  heatmap: {focal: 1.0, laplace: 0.1, correlation: 0.5, score: 1.0}
data: {demo_train: 8, demo_val: 4, demo_test: 4, demo_size: 64, batch_size: 4, check: counts}
optim: {lr: 1e-3}
train: {epochs: 1, device: cpu, picture_every: 1, pictures: 2, tensorboard: false, log_every: 1}
"""


def config(folder: Path, *overrides: str) -> Config:
    path = folder / "base.yaml"
    path.write_text(BASE)
    return load(path, [f"out={folder / 'runs'}", *overrides])


@pytest.mark.parametrize("head", ["decoder", "mapper"])
def test_a_run_learns_saves_and_answers(
    head: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_detector(config(tmp_path, f"model.heatmap.head={head}", "train.monitor=map_iou"))
    results = json.loads((run.run_dir / "results.json").read_text())
    assert results["no_heatmap"] is None
    assert 0 <= results["heatmap"]["IoU"] <= 1
    assert -1 <= results["saliency"]["CC"] <= 1
    assert results["scores"]["images"] == 8
    best = results["training"]["best_validation"]
    assert {"heatmap_focal", "heatmap_laplace", "heatmap_correlation", "heatmap_score"} <= set(best)
    assert list((run.run_dir / "pictures").iterdir())
    answer = load_model(run.run_dir).predict(np.zeros((40, 50, 3), np.uint8))
    assert answer.heatmap is not None
    assert answer.heatmap.shape == (40, 50)
    assert answer.warnings == ()
    assert "UNTRAINED" not in capsys.readouterr().out  # not of a score that is about to be learned


def test_a_head_or_score_that_nothing_teaches_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untaught = [f"loss.heatmap.{name}=0" for name in ("focal", "laplace", "correlation", "score")]
    for number, (options, said) in enumerate(
        {
            tuple(untaught): "heatmap head is UNTRAINED",
            (untaught[-1],): "score is UNTRAINED",
        }.items()
    ):
        run = train_detector(config(tmp_path, f"name=run{number}", *options))
        model = checkpoint.load_checkpoint(run.run_dir / run_folder.BEST)
        assert [n for n in model.notices if said in n]
        assert said in capsys.readouterr().out.partition("epoch 1/1")[0]  # known from the start
    again = train_detector(config(tmp_path, "name=taught", f"init_from={run.run_dir}"))
    assert checkpoint.load_checkpoint(again.run_dir / run_folder.BEST).notices == ()


def test_heatmaps_of_fakes_alone_can_be_learned(tmp_path: Path) -> None:
    small = load("student_small", ["data.demo_train=4", "data.demo_val=2", "data.demo_test=2"]).data
    small.demo_size = 64
    made = demo.convert_demo_data(small, tmp_path / "data")
    fakes = [line for line in made.manifest.read_text().splitlines() if '"label": 1' in line]
    made.manifest.write_text("\n".join(fakes) + "\n")
    data = ["data.name=manifest", f"data.root={tmp_path / 'data'}", "data.pairs=false"]
    with pytest.raises(Exception, match="train split holds only fake images"):
        train_detector(config(tmp_path, "name=refused", *data))
    run = train_detector(config(tmp_path, "name=fakes", "loss.bce=0", "train.monitor=loss", *data))
    assert run.results["saliency"]["images"] == 2


ONLY_FEATURES = (
    *("loss.bce=0", "loss.heatmap.focal=0", "loss.heatmap.laplace=0"),
    *("loss.heatmap.correlation=0", "loss.heatmap.score=0", "distill.laplace=0"),
    *("distill.divergence=0", "distill.correlation=0", "distill.score=0", "distill.logit=0"),
)
MAPPER, CROP = ("model.heatmap.head=mapper",), "data.augment.crop=true"
FEATURE = ("distill.teacher=x", "distill.feature=10")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.heatmap.head=none"], "loss.heatmap above 0 needs model.heatmap.head"),
        (["loss.alignment.weight=0.1"], "alignment.weight above 0 needs model.heatmap.head=none"),
        (["train.monitor=teacher_cc"], "train.monitor teacher_cc needs distill.teacher"),
        (["model.segmentation.head=upernet"], "heatmap.head needs model.segmentation.head=none"),
        (["model.heatmap.stride=3"], "model.heatmap.stride must be one of 2, 4, 8, 16, 32"),
        ([*MAPPER, "model.heatmap.tile=48"], "model.heatmap.tile must divide both sides"),
        ([*MAPPER, "model.heatmap.max_tiles=3"], "max_tiles is below the 2 x 2 tiles"),
        ([*MAPPER, "model.heatmap.heads=3"], "heatmap.heads must divide model.heatmap.width"),
        (
            [*MAPPER, CROP, "data.augment.crop_size=[48,32]"],
            "must divide both sides of data.augment.crop_size",
        ),
        (
            [*MAPPER, CROP, "data.augment.crop_size=[96,96]"],
            "below the 3 x 3 tiles of data.augment.crop_size",
        ),
        ([*FEATURE, "data.batch_size=1"], "data.batch_size must be at least 2: distill.feature"),
        ([*FEATURE, "freeze=[backbone]"], r"distill.feature must be 0 with freeze=\[backbone\]"),
        (
            [*FEATURE, *ONLY_FEATURES],
            r"loss.bce and the weights of all other losses are 0 \(distill.feature alone",
        ),
    ],
)
def test_contradictions_are_told(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, *overrides)
