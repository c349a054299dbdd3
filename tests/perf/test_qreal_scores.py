"""The benchmark of Q-Real's figures scores complete answers."""

import json
from pathlib import Path

from perf import qreal_scores as module
from perf.cli import main

from artifactnet.vlm.qreal.score import score_qreal


def test_files_are_complete_and_overlap_their_truth(tmp_path):
    truth, answers = module.write_files(tmp_path, 5, 6, seed=0)
    figures = score_qreal(truth, [answers])["figures"]
    assert figures["warnings"] == []
    assert (figures["images"], figures["entities"]) == (5, 30)
    assert figures["object"]["missing"] == 0
    for dimension in ("realism", "plausibility"):
        assert figures["image"][dimension]["boxes"] == 6
        assert 0 < figures["image"][dimension]["detection_rate"] < 1


def test_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = "--images 3 --entities 2 --repeats 2 --out report.json"
    assert main(["qreal-scores", *small.split()]) == 0
    report = json.loads(Path("report.json").read_text())
    assert report["setting"] == {"images": 3, "entities": 2, "repeats": 2}
    assert report["times"]["score"]["seconds"]["min"] > 0
    assert "3 images of 2 entities" in capsys.readouterr().out
