"""Plans of the papers' tables: what is trained, what is tabled, and nothing twice."""

import json

import pytest
from instant_runs import InstantRuns

from artifactnet import api, files
from artifactnet.config import load
from artifactnet.experiments import run as runner
from artifactnet.experiments.run import PLANS, Training, run_experiment
from artifactnet.runs import run_folder
from artifactnet.types import ArtifactNetError

MODES = ("global", "local", "fixed", "learnable", "uncertainty")
SMALL = (
    *("model.backbone_kwargs={embed_dim: 8, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2]}",),
    *("model.stem_width=4", "model.image_size=[64, 64]", "data.demo_size=64"),
    *("data.demo_train=4", "data.demo_val=2", "data.demo_test=3", "data.batch_size=4"),
    *("train.epochs=1", "train.tensorboard=false", "train.picture_every=0"),
)
MAPPER = ("model.heatmap.tile=32", "model.heatmap.width=8", "model.heatmap.heads=2")


def fusion_plan(recipe: str, *overrides: str) -> tuple[Training, ...]:
    """Modes and titles of the fusion ablation with another recipe."""
    return tuple(
        Training(t.key, t.title, recipe, overrides=(*overrides, *t.overrides))
        for t in PLANS["fusion-ablation"]
    )


def test_plans_name_recipes_that_exist_and_starts_that_come_first():
    for plan in PLANS.values():
        done = set()
        for training in plan:
            assert load(training.recipe).seed == 0
            assert training.start is None or training.start in done
            done.add(training.key)
        assert len(done) == len(plan)
    trainings = PLANS["fusion-ablation"]  # the paper's table
    assert {training.recipe for training in trainings} == {"heie_vision"}
    assert [t.overrides for t in trainings] == [(f"model.heatmap.fusion={m}",) for m in MODES]
    assert len({training.title for training in trainings}) == 5


@pytest.fixture
def instant(monkeypatch):
    def figures(config, _):
        value = 0.01 * (MODES.index(config.model.heatmap.fusion) + 1) + 0.002 * config.seed
        return {"saliency": {"MSE": value / 10, "KLD": 100 * value, "CC": 10 * value, "SIM": 1.0}}

    monkeypatch.setattr(runner, "PLANS", {"fusion-ablation": fusion_plan("swin_aj")})
    return InstantRuns(monkeypatch, figures)


def test_modes_differ_in_the_fusion_alone(tmp_path, instant):
    own = ["train.epochs=7", "model.heatmap.fusion=local"]  # the plan's mode overrides this one
    found = run_experiment("fusion-ablation", [0, 1], tmp_path, own)
    trained = instant.trained
    assert {config.train.epochs for config in trained} == {7}
    assert [c.model.heatmap.fusion for c in trained] == [*MODES] * 2
    assert [c.seed for c in trained] == [0] * 5 + [1] * 5
    for config in trained[1:5]:
        changed = {line.split()[0] for line in run_folder.changed_keys(trained[0], config)}
        assert changed == {"model.heatmap.fusion"}
    lines = (tmp_path / "fusion-ablation.md").read_text().splitlines()
    assert "| training | MSE | KLD | CC |" in lines
    assert "| global only | 0.00110 ± 0.00014 | 1.100 ± 0.141 | 0.110 ± 0.014 |" in lines
    assert "| both, weighted by uncertainty | 1 | 0.00520 | 5.200 | 0.520 |" in lines
    shown = [line for line in lines if "±" in line and line.startswith("| ")]
    titles = [training.title for training in PLANS["fusion-ablation"]]
    assert [line.split("|")[1].strip() for line in shown] == titles
    assert json.loads((tmp_path / "fusion-ablation.json").read_text()) == found
    assert run_experiment("fusion-ablation", [0, 1], tmp_path, own) == found
    assert len(trained) == 10  # none again
    with pytest.raises(ArtifactNetError, match=r"_s0 was made with another.*train\.epochs was 7"):
        run_experiment("fusion-ablation", [0, 1], tmp_path, ["train.epochs=8"])


@pytest.mark.parametrize("figures", [{}, {"saliency": {"MSE": 0.1, "KLD": None, "CC": None}}])
def test_a_run_without_heatmap_figures_is_an_error(tmp_path, instant, figures):
    run_experiment("fusion-ablation", [0], tmp_path)
    files.write_json(tmp_path / "fusion_local_s0" / "results.json", figures)
    with pytest.raises(ArtifactNetError, match="fusion_local_s0"):
        run_experiment("fusion-ablation", [0], tmp_path)


def test_names_and_seeds_are_checked_first(tmp_path):
    with pytest.raises(ArtifactNetError, match="unknown experiment 'x'; known: detection"):
        run_experiment("x", [0], tmp_path)
    for seeds in ([], [1, 1]):
        with pytest.raises(ArtifactNetError, match="seeds"):
            run_experiment("detection", seeds, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_interpretation_scores_every_detector_on_the_same_images(tmp_path, monkeypatch):
    runs = InstantRuns(monkeypatch, lambda config, text: {})
    monkeypatch.setattr(runner, "_interpretation", lambda *_: dict.fromkeys(runner.PIXELS, 0.5))
    run_experiment("interpretation", [0], tmp_path, ["data.demo_test=7"])
    assert [config.name for config in runs.trained][-2:] == ["base_s0", "align_s0"]
    data = [{k: v for k, v in vars(c.data).items() if "demo" in k} for c in runs.trained]
    assert data[0]["demo_test"] == 7
    assert all(other == data[0] for other in data)
    assert {config.model.pretrained for config in runs.trained[-2:]} == {"auto"}


@pytest.mark.slow
def test_modes_are_trained(tmp_path, monkeypatch):
    trainings = fusion_plan("swin_aj", "model.heatmap.head=mapper", "loss.heatmap.laplace=1")
    monkeypatch.setattr(runner, "PLANS", {"fusion-ablation": (trainings[2], trainings[4])})
    found = run_experiment("fusion-ablation", [0], tmp_path, [*SMALL, *MAPPER])
    fixed, uncertain = (row["seeds"]["0"] for row in found["rows"])
    assert fixed["CC"] != uncertain["CC"]
    assert 0 < fixed["MSE"] < 1
    results = json.loads((tmp_path / "fusion_fixed_s0" / "results.json").read_text())
    assert results["saliency"]["KLD"] == fixed["KLD"]


@pytest.mark.slow
def test_detection_and_interpretation_share_runs(tmp_path, monkeypatch):
    trainings = (
        Training("pad", "PAD-only", "swin_pad", classifies=False, segments=True),
        Training("ft", "fine-tuning", "swin_transfer_ft", start="pad", method="grad_cam"),
    )
    monkeypatch.setattr(runner, "PLANS", {"detection": trainings, "interpretation": trainings})
    found = run_experiment("detection", [0], tmp_path, SMALL)
    assert [row["key"] for row in found["rows"]] == ["pad", "ft"]
    pad, tuned = (row["seeds"]["0"] for row in found["rows"])
    assert set(pad) == {"IoU", "PixP", "PixR", "PixF1"}
    assert set(tuned) == {"BA", "F1", "AUC"}
    results = json.loads((tmp_path / "ft_s0" / "results.json").read_text())
    assert tuned["BA"] == results["authenticity"]["all"]["balanced_accuracy"]
    assert json.loads((tmp_path / "detection.json").read_text()) == found

    monkeypatch.setattr(api, "train", None)  # training again would fail
    assert run_experiment("detection", [0], tmp_path, SMALL) == found
    shown = run_experiment("interpretation", [0], tmp_path, SMALL)
    (row,) = shown["rows"]
    assert row["method"] == "grad_cam"
    kept = json.loads((tmp_path / "ft_s0" / "explanation.json").read_text())
    assert row["seeds"]["0"]["IoU"] == kept["scores"]["IoU"]
    monkeypatch.setattr(runner, "score_explanations", None)
    assert run_experiment("interpretation", [0], tmp_path, SMALL) == shown
    with pytest.raises(ArtifactNetError, match=r"pad_s0 was made with another config: optim\.lr"):
        run_experiment("detection", [0], tmp_path, [*SMALL, "optim.lr=1e-5"])
