"""``predict`` and ``report`` with a HEIE on a language model, and the option it takes."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from canned_predictor import NOTICE, RATIONALE, CannedPredictor, canned_pixels
from PIL import Image
from tiny_models import tiny

from artifactnet.cli import main
from artifactnet.config import MllmConfig
from artifactnet.data import datamodule
from artifactnet.evaluation import selection
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.runs.run_folder import CONFIG
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample
from artifactnet.vlm.heie import predictor as mllm_predictor
from artifactnet.vlm.heie.saving import FACTS


@pytest.fixture
def heie(tmp_path):
    """A folder that says it is a HEIE, beside a model of another kind."""
    folder = tmp_path / "runs" / "my heie"
    folder.mkdir(parents=True)
    (folder / FACTS).write_text("{}")
    return folder


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name, score in (("a.png", 0.2), ("b.png", 0.8)):
        Image.fromarray(canned_pixels(score)).save(Path("photos") / name)
    return "photos"


@pytest.fixture
def opened(monkeypatch):
    """What HEIE was opened, on which device and for which text; it is told what to say."""
    asked = []

    def load(path, device="cpu", merge=False):
        assert merge  # it only answers
        mllm = MllmConfig(text="none" if "silent" in str(path) else "written")
        return SimpleNamespace(
            path=str(path), device=str(device), mllm=mllm, processing=None, notices=()
        )

    class Opened(CannedPredictor):
        def __init__(self, model, mode="generate"):
            super().__init__()
            self.model, self.mode = model, mode
            asked.append((model.path, model.device, mode))

        def _stream(self, images, options):
            seen.append(options.batch_size)
            return super()._stream(images, options)

    seen = []
    monkeypatch.setattr(mllm_predictor, "load_heie", load)
    monkeypatch.setattr(mllm_predictor, "HeiePredictor", Opened)
    return SimpleNamespace(asked=asked, batches=seen)


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    save_checkpoint(tiny(), folder / "model.safetensors")
    return str(folder)


def error_of(capsys, *arguments):
    assert main([str(a) for a in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("artifactnet: error: ")


@pytest.mark.parametrize(
    ("extra", "mode", "batch"),
    [([], "generate", 1), (["--text", "template", "--batch-size", "2"], "template", 2)],
)
def test_predict(heie, photos, opened, capsys, extra, mode, batch):
    words = ["predict", photos, "--model", str(heie), "--out", "out", "--device", "cpu"]
    assert main([*words, *extra]) == 0
    assert opened.asked == [(str(heie), "cpu", mode)]
    assert opened.batches == [batch]
    lines = [json.loads(x) for x in Path("out/predictions.jsonl").read_text().splitlines()]
    assert [line["explanation"]["issues"] for line in lines] == [RATIONALE.issues] * 2
    assert [line["score"] for line in lines] == pytest.approx([0.2, 0.8])
    assert all(Path("out", line["heatmap"]).is_file() for line in lines)
    printed, told = capsys.readouterr()
    assert "2 of 2 images predicted, 1 called fake" in printed
    assert f"artifactnet: warning: {NOTICE}" in told


@pytest.mark.parametrize(
    ("extra", "mode"), [([], "template"), (["--text", "generate"], "generate")]
)
def test_one_that_never_learnt_to_write_gets_the_fixed_text(heie, photos, opened, extra, mode):
    silent = str(heie.rename(heie.with_name("silent")))
    cpu = ["--device", "cpu", *extra]
    assert main(["predict", photos, "--model", silent, "--out", "out", *cpu]) == 0
    assert main(["report", silent, "--images", photos, "--out", "page", *cpu]) == 0
    assert opened.asked == [(silent, "cpu", mode)] * 2


def test_predict_refuses_what_a_heie_has_not(heie, photos, opened, capsys):
    start = ("predict", photos, "--model", heie, "--out", "out")
    assert "masks need a model with" in error_of_last(capsys, *start, "--save-masks")
    assert "tiles need a model with" in error_of_last(capsys, *start, "--tiles")
    assert "cannot be exported" in error_of(capsys, *start, "--backend", "onnx")
    assert not Path("out").exists()


def error_of_last(capsys, *arguments):
    """Of a command that repeats the model's warnings first."""
    assert main([str(a) for a in arguments]) == 2
    return capsys.readouterr().err.splitlines()[-1].removeprefix("artifactnet: error: ")


def test_report(heie, photos, opened, capsys):
    arguments = ["--images", photos, "--out", "page", "--text", "generate", "--device", "cpu"]
    assert main(["report", str(heie), *arguments]) == 0
    assert opened.asked == [(str(heie), "cpu", "generate")]
    assert opened.batches == [1, 1]  # two images, one by one
    found = json.loads(Path("page/report.json").read_text())
    assert found["title"] == "my heie on photos"
    assert found["warnings"] == [NOTICE]
    assert [e["explanation"]["text"] for e in found["entries"]] == [RATIONALE.text] * 2
    assert [e["score"] for e in found["entries"]] == pytest.approx([0.2, 0.8])
    assert "2 of 2 images in the report, 1 called fake" in capsys.readouterr().out
    assert "six fingers" in Path("page/report.html").read_text()


def test_report_of_a_run_on_its_own_images(heie, opened, monkeypatch):
    records = [
        Record(str(k), k, "g" if k else "real", Annotation.NONE, f"/d/{k}.png") for k in range(2)
    ]
    source = SimpleNamespace(
        records=records, load=lambda k: Sample(records[k], canned_pixels(0.2 + 0.6 * (1 - k)))
    )
    seen = []

    def build_splits(config, seed, one_class):
        seen.append((config.root, config.check, seed))
        return {"train": source, "val": source}

    monkeypatch.setattr(selection, "build_splits", build_splits)
    monkeypatch.setattr(
        datamodule, "drop_and_summarize", lambda splits, config: (splits, {"warnings": ["few"]})
    )
    text = "name: its name\nseed: 5\ndata: {name: folder, root: here}\n"
    (heie / CONFIG).write_text(text)
    assert main(["report", str(heie), "--device", "cpu"]) == 0
    assert seen == [("here", "counts", 5)]
    found = json.loads((heie / "report" / "report.json").read_text())
    assert (found["model"]["name"], found["data"]["name"]) == ("its name", "folder")
    assert found["data"]["split"] == "val"
    assert found["warnings"][:2] == [NOTICE, "few"]
    assert any("validation images" in text for text in found["warnings"])
    assert [entry["label"] for entry in found["entries"]] == [0, 1]
    assert [entry["correct"] for entry in found["entries"]] == [True, True]


def test_report_of_a_heie_without_images(heie, opened, capsys):
    told = error_of(capsys, "report", heie)
    assert told.startswith(f"{heie}: ")
    assert "config.yaml" in told
    assert "--images" in told
    (heie / CONFIG).write_text("name: x\n")
    told = error_of(capsys, "report", heie, "model.threshold=0.3")
    assert told.startswith("model.threshold cannot be changed for a report of a HEIE")
    assert opened.asked == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "photos", "--model", "MODEL", "--out", "out", "--text", "template"],
        ["report", "MODEL", "--images", "photos", "--out", "out", "--text", "generate"],
        ["report", "MODEL", "--out", "out", "--text", "generate"],
    ],
)
def test_other_models_take_no_text(usual, photos, capsys, arguments):
    told = error_of(capsys, *[usual if a == "MODEL" else a for a in arguments])
    assert told.startswith(usual)
    assert "text=" in told
    assert not Path("out").exists()


def test_a_text_that_nobody_knows(photos, capsys):
    with pytest.raises(SystemExit):
        main(["predict", photos, "--model", "m", "--out", "out", "--text", "prose"])
    assert "generate" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "report"])
def test_without_the_extra(heie, photos, monkeypatch, capsys, command):
    def missing(*args, **options):
        raise ArtifactNetError("HEIE needs transformers: pip install 'artifactnet[mllm]'")

    monkeypatch.setattr(mllm_predictor, "load_heie", missing)
    model = ["--model", heie] if command == "predict" else [heie, "--images"]
    words = [command, *([photos, *model] if command == "predict" else [*model, photos])]
    told = error_of(capsys, *words, "--out", "out")
    assert told == "HEIE needs transformers: pip install 'artifactnet[mllm]'"
    assert not Path("out").exists()


def test_explain_sends_a_heie_to_predict_and_report(heie, photos, capsys):
    told = error_of(capsys, "explain", heie, photos, "--out", "out")
    assert str(heie) in told
    assert np.asarray(Image.open("photos/a.png")).shape == (24, 36, 3)
