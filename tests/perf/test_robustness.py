"""The benchmark of damaged images reads each once a level, and tells models' time from ours."""

import json
import time

import numpy as np
from perf.cli import main
from perf.robustness import Timed

from artifactnet.experiments.evaluated_models import EvaluatedModel, Judgment, Shown


def test_reads_and_overhead(tmp_path, capsys):
    out = tmp_path / "report.json"
    words = ["--images", "5", "--size", "64", "--levels", "original", "crop", "--out", str(out)]
    models = ["a=stub_models:brightness", "b=stub_models:brightness"]
    assert main(["robustness", "--model", *models, *words]) == 0
    report = json.loads(out.read_text())
    assert [row["level"] for row in report["levels"]] == ["original", "crop"]
    for row in report["levels"]:
        assert row["reads_per_image"] == [1, 1]
        assert 0 < row["models_seconds"] < row["seconds"]
    assert report["total"]["seconds"] == sum(row["seconds"] for row in report["levels"])
    assert "an image read 1 times" in capsys.readouterr().out


def test_a_models_time_is_its_own():
    class Slow(EvaluatedModel):
        name = version = "slow"
        batch_size, about = 2, {}

        def judge(self, images, where):
            for _ in images:
                time.sleep(0.02)
                yield Judgment(True)

    model = Timed(Slow())
    images = [Shown("s", "original", "k", ("k",), np.zeros((2, 2, 3), np.uint8))] * 3
    for _ in model.judge(images, False):
        time.sleep(0.05)  # of others
    assert 0.06 <= model.seconds < 0.12
