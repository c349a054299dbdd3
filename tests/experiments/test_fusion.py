"""The fusion ablation: five modes, the same otherwise, heatmap figures in the paper's order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifactnet import files
from artifactnet.config import Config
from artifactnet.experiments import run as runner
from artifactnet.experiments.run import PLANS, Training, run_experiment
from artifactnet.runs import run_folder
from artifactnet.types import ArtifactNetError

MODES = ("global", "local", "fixed", "learnable", "uncertainty")
SMALL = (
    *("model.backbone_kwargs={embed_dim: 8, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2]}",),
    *("model.stem_width=4", "model.image_size=[64, 64]", "data.demo_size=64"),
    *("model.heatmap.tile=32", "model.heatmap.width=8", "model.heatmap.heads=2"),
    *("data.demo_train=4", "data.demo_val=2", "data.demo_test=3", "data.batch_size=4"),
    *("train.epochs=1", "train.tensorboard=false", "train.picture_every=0"),
)


def plan(recipe: str, *overrides: str) -> tuple[Training, ...]:
    """The plan's modes and titles with another recipe."""
    return tuple(
        Training(t.key, t.title, recipe, overrides=(*overrides, *t.overrides))
        for t in PLANS["fusion-ablation"]
    )


def test_plan_is_the_papers_table():
    trainings = PLANS["fusion-ablation"]
    assert {training.recipe for training in trainings} == {"heie_vision"}
    assert [t.overrides for t in trainings] == [(f"model.heatmap.fusion={m}",) for m in MODES]
    assert len({training.title for training in trainings}) == 5


@pytest.fixture
def trained(monkeypatch):
    """Trainings that only leave behind what a training leaves; their configs in order."""
    configs: list[Config] = []

    def train(config: Config) -> None:
        configs.append(config)
        value = 0.01 * (MODES.index(config.model.heatmap.fusion) + 1) + 0.002 * config.seed
        folder = Path(config.out) / config.name
        run_folder.prepare(config)
        figures = {"MSE": value / 10, "KLD": 100 * value, "CC": 10 * value, "SIM": 1.0}
        files.write_json(folder / "results.json", {"saliency": figures})
        run_folder.finish(folder, {})

    monkeypatch.setattr(runner, "train", train)
    monkeypatch.setattr(runner, "PLANS", {"fusion-ablation": plan("swin_aj")})
    return configs


def test_modes_differ_in_the_fusion_alone(tmp_path, trained):
    own = ["train.epochs=7", "model.heatmap.fusion=local"]  # the plan's mode goes before mine
    found = run_experiment("fusion-ablation", [0, 1], tmp_path, own)
    assert len(trained) == 10
    assert {config.train.epochs for config in trained} == {7}
    assert [c.model.heatmap.fusion for c in trained] == [*MODES] * 2
    assert [c.seed for c in trained] == [0] * 5 + [1] * 5
    first = trained[0]
    for config in trained[1:5]:
        changed = {line.split()[0] for line in run_folder.differences(first, config)}
        assert changed == {"model.heatmap.fusion"}
    assert found["columns"] == ["MSE", "KLD", "CC"]
    lines = (tmp_path / "fusion-ablation.md").read_text().splitlines()
    assert "| training | MSE | KLD | CC |" in lines
    assert "| global only | 0.00110 ± 0.00014 | 1.100 ± 0.141 | 0.110 ± 0.014 |" in lines
    assert "| both, weighted by uncertainty | 1 | 0.00520 | 5.200 | 0.520 |" in lines
    shown = [line for line in lines if "±" in line and line.startswith("| ")]
    titles = [training.title for training in PLANS["fusion-ablation"]]
    assert [line.split("|")[1].strip() for line in shown] == titles
    assert json.loads((tmp_path / "fusion-ablation.json").read_text()) == found
    count = len(trained)
    assert run_experiment("fusion-ablation", [0, 1], tmp_path, own) == found
    assert len(trained) == count  # nothing again
    with pytest.raises(ArtifactNetError, match=r"_s0 was made with another.*train\.epochs was 7"):
        run_experiment("fusion-ablation", [0, 1], tmp_path, ["train.epochs=8"])


@pytest.mark.parametrize("figures", [None, {"MSE": 0.1, "KLD": None, "CC": None}])
def test_a_run_without_heatmap_figures_is_an_error(tmp_path, trained, figures):
    run_experiment("fusion-ablation", [0], tmp_path)
    path = tmp_path / "fusion_local_s0" / "results.json"
    files.write_json(path, {} if figures is None else {"saliency": figures})
    with pytest.raises(ArtifactNetError, match="fusion_local_s0.*no heatmap was compared"):
        run_experiment("fusion-ablation", [0], tmp_path)


@pytest.mark.slow
def test_modes_are_trained(tmp_path, monkeypatch):
    trainings = plan("swin_aj", "model.heatmap.head=mapper", "loss.heatmap.laplace=1")
    monkeypatch.setattr(runner, "PLANS", {"fusion-ablation": (trainings[2], trainings[4])})
    found = run_experiment("fusion-ablation", [0], tmp_path, SMALL)
    fixed, uncertain = (row["seeds"]["0"] for row in found["rows"])
    assert fixed["CC"] != uncertain["CC"]
    assert 0 < fixed["MSE"] < 1
    results = json.loads((tmp_path / "fusion_fixed_s0" / "results.json").read_text())
    assert results["saliency"]["KLD"] == fixed["KLD"]
    assert "AUC-Judd" in (tmp_path / "fusion_fixed_s0" / "results.md").read_text()
