"""Commands without a model: the packaged default answers, and the terminal says so."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny

import artifactnet
from artifactnet.cli import arguments, explain, main, report
from artifactnet.inference import load
from artifactnet.inference.load import names_model
from artifactnet.models import packaged
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import ArtifactNetError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with images, a run, a run without a model, and a package with one default."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("box/small", 1), ("run/model", 2)):
        save_checkpoint(tiny(seed=seed), f"{name}.safetensors")
    Path("unfinished").mkdir()
    Path("unfinished/config.yaml").write_text("name: x\n")
    Path("photos").mkdir()
    for k in range(2):
        pixels = np.random.default_rng(k).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{k}.png")
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "box")
    for module in (arguments, explain, report):
        monkeypatch.setattr(module, "DEFAULT", "small")
    return tmp_path


SAID = "model small (packaged; --model names another)\n"
CPU = ["--device", "cpu", "--out", "out"]


def probabilities(model) -> list[float]:
    predictor = artifactnet.load_model(model, device="cpu")
    return [predictor.predict(f"photos/{k}.png").probability for k in range(2)]


def answered(file) -> list[float]:
    lines = [json.loads(line) for line in Path(file).read_text().splitlines()]
    return [line["probability"] for line in lines]


def test_the_default_is_in_the_package():
    assert packaged.DEFAULT in packaged.list_packaged()
    assert artifactnet.load_model(device="cpu").has_segmentation in (True, False)


def test_predict(here, capsys):
    assert main(["predict", "photos", *CPU]) == 0
    assert capsys.readouterr().err.startswith(SAID)
    assert answered("out/predictions.jsonl") == pytest.approx(probabilities("small"), abs=1e-6)
    assert main(["predict", "photos", "--model", "run", *CPU]) == 0
    assert SAID not in capsys.readouterr().err
    assert answered("out/predictions.jsonl") == pytest.approx(probabilities("run"), abs=1e-6)


@pytest.mark.parametrize(
    ("words", "model"),
    [
        (["photos"], "small"),
        (["photos/0.png", "photos/1.png"], "small"),
        (["run", "photos"], "run"),
        (["run/model.safetensors", "photos"], "run"),
        (["small", "photos"], "small"),
        (["photos", "--model", "run"], "run"),
    ],
)
def test_explain(here, capsys, words, model):
    assert main(["explain", *words, *CPU]) == 0
    out, err = capsys.readouterr()
    assert ("2 of 2 images explained" in out, "1.png" in out) == (True, True)
    named = "--model" in words or not words[0].startswith("photos")
    assert (SAID in err) != named
    shown = [float(line.split()[0]) for line in out.splitlines()[:2]]
    assert shown == pytest.approx(probabilities(model), abs=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.safetensors", "photos"], "nothing.safetensors: no such model file"),
        (["unfinished", "photos"], "unfinished: no model.safetensors in this folder"),
        (["run"], "run is a model; name the images after it"),
    ],
)
def test_explain_never_takes_another_model_than_was_named(here, capsys, words, message):
    assert main(["explain", *words, *CPU]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"artifactnet: error: {message}")
    assert not Path("out").exists()


def test_what_names_a_model(here):
    models = ["run", "small", "run/model.safetensors", "no.safetensors", "no.onnx", "unfinished"]
    assert [names_model(word) for word in models] == [True] * len(models)
    images = ["photos", "photos/0.png", "photos/*.png", "none.png", "-", "nowhere"]
    assert [names_model(word) for word in images] == [False] * len(images)
    Path("small").mkdir()  # a path wins over a packaged model, and this one has no model
    assert not names_model("small")


def test_report(here, capsys):
    assert main(["report", "--images", "photos", *CPU]) == 0
    assert capsys.readouterr().err.startswith(SAID)
    found = json.loads(Path("out/report.json").read_text())
    assert found["model"]["name"] == "small"
    assert main(["report", "--model", "run", "--images", "photos", *CPU]) == 0
    assert json.loads(Path("out/report.json").read_text())["model"]["name"] == "run"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report"], "name the folder of a run, or images with --images"),
        (["report", "run", "--model", "small", "--images", "photos"], "name one model"),
    ],
)
def test_report_of_nothing_and_of_two_models(here, capsys, words, message):
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(message)


def test_load_model_without_a_name(here, monkeypatch):
    assert load.load_model.__defaults__[0] == packaged.DEFAULT
    monkeypatch.setattr(packaged, "FOLDER", here / "photos")
    with pytest.raises(ArtifactNetError, match=f"^{packaged.DEFAULT}: no such model file"):
        artifactnet.load_model()
