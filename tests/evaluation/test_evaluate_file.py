"""Figures of a file: those of the run that it came from, whatever the format."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_exports import student
from tiny_models import tiny

from artifactnet.cli import main
from artifactnet.config import ConfigError
from artifactnet.distillation.teachers import ModelTeacher
from artifactnet.evaluation import evaluate
from artifactnet.exporters.checks import answers_of_model
from artifactnet.exporters.graph import facts_of
from artifactnet.inference.backends.exported import ExportedModel
from artifactnet.inference.predictor import Predictor
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import ArtifactNetError, Float32Array, UInt8Array

DATA = ("data.demo_test=4", "data.demo_size=64", "data.check=counts", "data.eval_batch_size=3")


class Exported:
    """What an exported file of a model is to its caller; other tests make real ones."""

    def __init__(self, model: ArtifactNet) -> None:
        self.facts, self.shape, self._model = facts_of(model), model.image_size, model

    def run(self, frames: UInt8Array) -> list[Float32Array]:
        answers = answers_of_model(self._model, self.facts, list(frames))
        return [answers[name] for name in self.facts.outputs]


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any name with the suffix of an export stands for the student's."""
    model = ExportedModel(Exported(made()), "one.onnx")
    opened = evaluate.load_model

    def load(path, device):
        return Predictor(model) if str(path) == "one.onnx" else opened(path, device)

    monkeypatch.setattr(evaluate, "load_model", load)


def made() -> ArtifactNet:
    model = student()
    model.notices = ("these weights are random",)
    model.config.threshold = 0.4375
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The student's weights, and a teacher."""
    folder = tmp_path_factory.mktemp("files")
    found = {name: folder / name for name in ("one.safetensors", "tutor.safetensors")}
    save_checkpoint(made(), found["one.safetensors"], {"epoch": 7})
    save_checkpoint(student(seed=1), found["tutor.safetensors"])
    return found


def flat(value: Any, prefix: str = "") -> dict[str, float]:
    """Every number of the results by its path."""
    if isinstance(value, dict):
        return {k: v for key in value for k, v in flat(value[key], f"{prefix}/{key}").items()}
    return {prefix: float(value)} if isinstance(value, int | float) else {}


def test_weights_and_export_have_the_same_figures(
    files: dict[str, Path], exported: None, tmp_path: Path
) -> None:
    options = [*DATA, f"out={tmp_path}", f"distill.teacher={files['tutor.safetensors']}"]
    weights = evaluate.evaluate_file(files["one.safetensors"], options)
    export = evaluate.evaluate_file("one.onnx", options)
    assert (weights["model"]["epoch"], export["model"]["epoch"]) == (7, None)
    assert weights["threshold"] == export["threshold"] == 0.4375
    assert weights["notices"] == export["notices"] == ["these weights are random"]
    assert weights["teacher"]["images"] == 8
    assert (weights["teacher"]["real"]["images"], weights["teacher"]["fake"]["images"]) == (4, 4)
    for section in ("teacher", "saliency", "scores", "authenticity"):
        first, second = flat(weights[section]), flat(export[section])
        assert first.keys() == second.keys()
        assert first == pytest.approx(second, abs=1e-4), section
    assert weights["teacher"]["CC"] < 0.99
    folders = sorted(path.name for path in (tmp_path / "evaluations").iterdir())
    assert [name.rpartition("-")[0] for name in folders] == [
        "one.onnx-demo",
        "one.safetensors-demo",
    ]
    kept = [tmp_path / "evaluations" / name / "results.json" for name in folders]
    assert [json.loads(path.read_text()) for path in kept] == [export, weights]
    assert (tmp_path / ".cache" / "teachers").is_dir()


def test_without_a_teacher_nobody_is_asked(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelTeacher, "__init__", None)
    found = evaluate.evaluate_file(
        files["one.safetensors"], [*DATA, f"out={tmp_path}", "model.threshold=0.999999"]
    )
    assert found["teacher"] is None
    assert found["threshold"] == 0.999999
    assert found["authenticity"]["all"]["recall"] == 0
    assert found["map_threshold"] == 0.5
    (folder,) = (tmp_path / "evaluations").iterdir()
    assert "model of epoch 7" in (folder / "results.md").read_text()


def test_the_command_tells_files_from_runs(
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [*DATA, f"out={tmp_path}", "data.demo_test=1"]
    assert main(["evaluate", str(files["one.safetensors"]), *options]) == 0
    assert "balanced accuracy" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    for name in ("gone.safetensors", "gone.xml", "student-nano"):
        assert evaluate.is_model_file(name)
    (tmp_path / "student-nano").mkdir()
    for name in ("gone", "runs/gone", "student-nano", ""):
        assert not evaluate.is_model_file(name)
    assert main(["evaluate", "runs/gone"]) == 2
    assert "runs/gone is not the folder of a run" in capsys.readouterr().err
    assert main(["evaluate", "gone.onnx"]) == 2
    assert "gone.onnx: no such" in capsys.readouterr().err


def test_what_cannot_be_evaluated(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr cannot be changed for an evaluation"):
        evaluate.evaluate_file(files["one.safetensors"], ["optim.lr=1"])
    with pytest.raises(ArtifactNetError, match="gone: no such model file"):
        evaluate.evaluate_file(tmp_path / "gone")
    torch.manual_seed(0)
    flat_model = tmp_path / "flat.safetensors"
    save_checkpoint(tiny(), flat_model)
    teacher = f"distill.teacher={files['tutor.safetensors']}"
    with pytest.raises(ArtifactNetError, match="predicts no heatmap that could be compared"):
        evaluate.evaluate_file(flat_model, [*DATA, teacher])


def test_drawn_splits_follow_the_seed_and_are_warned_about(
    files: dict[str, Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        for label in ("real", "fake"):
            path = tmp_path / "data" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    data = ("data.name=folder", f"data.root={tmp_path / 'data'}", "data.check=counts")
    found = {}
    for seed in (0, 1):
        own = [*data, "data.val_fraction=0.25", f"seed={seed}", f"out={tmp_path / str(seed)}"]
        found[seed] = evaluate.evaluate_file(files["one.safetensors"], own)
        (told,) = [text for text in found[seed]["data_warnings"] if "drawn with" in text]
        assert f"seed={seed}" in told
    # other images are judged
    assert found[0]["authenticity"] != found[1]["authenticity"]
