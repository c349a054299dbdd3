"""Figures of recompressed images against counting by hand."""

import io
import json

import numpy as np
from canned_predictor import CannedPredictor
from perf import recompressed
from perf.cli import main
from PIL import Image


def test_counts_and_levels(tmp_path, monkeypatch, capsys):
    # the canned probability is 1 - the gray of the first pixel
    levels = {"real": [215, 55], "fake": [35, 75, 195]}
    for kind, values in levels.items():
        (tmp_path / kind).mkdir()
        for number, value in enumerate(values):
            gray = np.full((32, 32, 3), value, np.uint8)
            Image.fromarray(gray).save(tmp_path / kind / f"{number}.png")
    seen = []

    class Watching(CannedPredictor):
        def predict_stream(self, paths, *args, **kwargs):
            paths = list(paths)
            seen.append([type(item.image) for item in paths])
            return super().predict_stream(paths, *args, **kwargs)

    monkeypatch.setattr(recompressed, "load_model", lambda *_: Watching())
    out = tmp_path / "report.json"
    assert main(["recompressed", str(tmp_path), "--quality", "50", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["level"] for row in rows] == ["as is", "JPEG 50", "half"]
    for row in rows:
        assert row["real_called_fake"] == 0.5
        assert row["recall"] == 2 / 3
        assert row["balanced_accuracy"] == (2 / 3 + 0.5) / 2
        assert row["verdict_fake_of_real"] == 0.5  # no limits: the threshold
        assert row["auc"] == 4 / 6
    assert seen == [[str] * 5, [bytes] * 5, [bytes] * 5]
    assert "JPEG 50" in capsys.readouterr().out


def test_half_is_half(tmp_path):
    Image.fromarray(np.full((33, 20, 3), 90, np.uint8)).save(tmp_path / "a.png")
    content = recompressed.changed(str(tmp_path / "a.png"), recompressed.HALF)
    assert Image.open(io.BytesIO(content)).size == (10, 17)
