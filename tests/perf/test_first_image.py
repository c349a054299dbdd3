"""Time to the first answer: what is measured is reported, phase by phase."""

import json
from pathlib import Path

import pytest
from perf.cli import main
from tiny_models import tiny

from artifactnet.models.checkpoint import save_checkpoint


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tiny(), "m.safetensors")
    return "m.safetensors"


def test_report(model, capsys):
    words = ["--model", model, "--size", "64", "--images", "2", "--repeats", "1"]
    assert main(["first-image", *words, "--out", "report.json"]) == 0
    report = json.loads(Path("report.json").read_text())
    expected = {"model": model, "size": 64, "images": 2, "repeats": 1}
    expected |= {"text": None, "threads": 1, "core": None}
    assert report["setting"] == expected
    seconds = {name: each["wall"]["median"] for name, each in report["seconds"].items()}
    whole = seconds["load model"] + seconds["first image"]
    assert seconds["load and first image"] == pytest.approx(whole)
    assert 0 < seconds["next image"] < seconds["load and first image"]
    printed = capsys.readouterr().out
    assert all(name in printed for name in seconds)
    assert list(seconds)[-1] == "command line, beyond torch"


def test_a_process_that_fails_says_why(model, capsys):
    words = ["--model", "none.safetensors", "--repeats", "1", "--size", "32"]
    assert main(["first-image", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "none.safetensors: no such model file" in line
