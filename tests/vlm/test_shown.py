"""``predict`` and ``report`` with a saved HEIE, from the command line to the files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifactnet.cli import main
from artifactnet.inference.load import load_model
from artifactnet.vlm.heie.saving import save_heie


@pytest.fixture
def saved(heie, tmp_path, monkeypatch):
    """Folder of a HEIE that writes little, and two photographs in the current folder."""
    monkeypatch.chdir(tmp_path)
    heie.mllm.max_new_tokens = 8
    save_heie(heie, tmp_path / "heie", {})
    Path("photos").mkdir()
    for k, size in enumerate(((60, 100), (56, 56))):
        pixels = np.random.default_rng(k).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{k}.png")
    return "heie"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["generate", "template"])
def test_predict_and_report(saved, text, capsys):
    extra = ["--text", text, "--device", "cpu", "--batch-size", "2"]
    assert main(["predict", "photos", "--model", saved, "--out", "out", *extra]) == 0
    assert main(["report", saved, "--images", "photos", "--out", "page", *extra]) == 0
    lines = [json.loads(x) for x in Path("out/predictions.jsonl").read_text().splitlines()]
    report = json.loads(Path("page/report.json").read_text())
    expected = load_model(saved, "cpu", text=text)
    assert report["warnings"] == list(expected.warnings)
    assert len(lines) == len(report["entries"]) == 2
    for line, entry in zip(lines, report["entries"], strict=True):
        (answer,) = expected.predict([line["path"]])
        assert line["score"] == pytest.approx(answer.score, abs=1e-5)
        assert entry["score"] == pytest.approx(answer.score, abs=1e-5)
        assert Image.open(Path("out", line["heatmap"])).size == (entry["width"], entry["height"])
        if text == "template":
            assert line["explanation"] is None
            assert "explanation" not in entry
        else:
            assert line["explanation"]["text"] == answer.explanation.text
            assert entry["explanation"] == line["explanation"]
            # what was mended of the text of random weights is said with the image
            assert entry["warnings"] == [t for t in line["warnings"] if t not in expected.warnings]
            assert entry["warnings"]
    printed = capsys.readouterr().out
    assert "2 of 2 images in the report" in printed
    assert "called implausible; figures in" in printed


@pytest.mark.slow
def test_report_of_a_run_shows_its_test_images(saved):
    text = "name: a run\ndata: {name: demo}\n"
    Path(saved, "config.yaml").write_text(text)
    assert main(["report", saved, "--limit", "2", "--text", "template", "--device", "cpu"]) == 0
    found = json.loads(Path(saved, "report", "report.json").read_text())
    assert (found["model"]["name"], found["data"]["name"]) == ("a run", "demo")
    assert (found["data"]["split"], found["data"]["images"]) == ("test", 2)
    assert sorted(entry["label"] for entry in found["entries"]) == [0, 1]
    assert all(0 <= entry["score"] <= 1 for entry in found["entries"])
    (fake,) = (entry for entry in found["entries"] if entry["label"])
    assert set(fake["scores"]) == {"predicted_heatmap"}  # against its annotation
