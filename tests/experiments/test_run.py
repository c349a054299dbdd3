"""An experiment is trained, judged, tabled, and not done twice."""

import json

import pytest

from artifactnet.experiments import run as runner
from artifactnet.experiments.run import Training, run_experiment
from artifactnet.types import ArtifactNetError

SMALL = (
    *("model.backbone_kwargs={embed_dim: 8, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2]}",),
    *("model.stem_width=4", "model.image_size=[56, 56]", "data.demo_size=56"),
    *("data.demo_train=4", "data.demo_val=2", "data.demo_test=3", "data.batch_size=4"),
    *("train.epochs=1", "train.tensorboard=false", "train.picture_every=0"),
)


@pytest.fixture
def plan(monkeypatch):
    trainings = (
        Training("pad", "PAD-only", "swin_pad", judges=False, segments=True),
        Training("ft", "fine-tuning", "swin_transfer_ft", start="pad", method="grad_cam"),
    )
    monkeypatch.setattr(runner, "PLANS", {"detection": trainings, "interpretation": trainings})


@pytest.mark.slow
def test_runs_are_made_once_and_tabled(tmp_path, plan, monkeypatch):
    found = run_experiment("detection", [0], tmp_path, SMALL)
    assert [row["key"] for row in found["rows"]] == ["pad", "ft"]
    pad, tuned = (row["seeds"]["0"] for row in found["rows"])
    assert set(pad) == {"IoU", "PixP", "PixR", "PixF1"}
    assert set(tuned) == {"BA", "F1", "AUC"}
    results = json.loads((tmp_path / "ft_s0" / "results.json").read_text())
    assert tuned["BA"] == results["authenticity"]["all"]["balanced_accuracy"]
    assert json.loads((tmp_path / "detection.json").read_text()) == found
    assert "fine-tuning" in (tmp_path / "detection.md").read_text()

    monkeypatch.setattr(runner, "train", None)  # whoever trains again fails
    again = run_experiment("detection", [0], tmp_path, SMALL)
    assert again == found

    shown = run_experiment("interpretation", [0], tmp_path, SMALL)
    (row,) = shown["rows"]
    assert row["method"] == "grad_cam"
    kept = json.loads((tmp_path / "ft_s0" / "explanation.json").read_text())
    assert row["seeds"]["0"]["IoU"] == kept["scores"]["IoU"]
    monkeypatch.setattr(runner, "judge", None)
    assert run_experiment("interpretation", [0], tmp_path, SMALL) == shown

    with pytest.raises(ArtifactNetError, match="pad_s0 was made with another config: optim.lr"):
        run_experiment("detection", [0], tmp_path, [*SMALL, "optim.lr=1e-5"])


def test_names_and_seeds_are_checked_first(tmp_path):
    with pytest.raises(ArtifactNetError, match="unknown experiment 'x'; known: detection"):
        run_experiment("x", [0], tmp_path)
    for seeds in ([], [1, 1]):
        with pytest.raises(ArtifactNetError, match="seeds"):
            run_experiment("detection", seeds, tmp_path)
    assert list(tmp_path.iterdir()) == []
