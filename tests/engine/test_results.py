from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from artifactnet import files
from artifactnet.engine import results as tables
from artifactnet.metrics.authenticity import scores
from artifactnet.metrics.pixels import PixelCounts, pixel_scores


@pytest.fixture
def results() -> dict[str, Any]:
    counts = PixelCounts(30, 10, 60, 5, 2, 3)
    return {
        "run": "my run",
        "data": {"name": "folder", "root": "photos", "split": "test"},
        "model": {"backbone": "vit", "epoch": 4},
        "notices": ["weights are RANDOM"],
        "data_warnings": ["real is JPEG, fake is PNG"],
        "skipped": [],
        "threshold": 0.5,
        "map_threshold": 0.4,
        "no_heatmap": None,
        "images": 20,
        "authenticity": {
            "all": scores(tp=7, fp=1, tn=9, fn=3),
            "generators": {"sdxl": scores(tp=4, fp=1, tn=9, fn=0)},
        },
        "heatmap": {**pixel_scores(30, 10, 60), **counts._asdict()},
    }


def test_every_figure_has_its_counts_beside_it(results: dict[str, Any]) -> None:
    lines = tables.markdown(results).splitlines()
    assert "| all | 10 | 10 | 0.8000 | 0.8750 | 0.7000 | 0.7778 |" in lines
    assert "| sdxl | 4 | 10 | 0.9500 | 0.8000 | 1.0000 | 0.8889 |" in lines
    assert "| 0.3000 | 0.7500 | 0.3333 | 0.4615 | 30 | 10 | 60 | 5 | 2 |" in lines
    text = "\n".join(lines)
    for word in ("> **Warning:** weights are RANDOM", "real is JPEG", "epoch 4", "above 0.4"):
        assert word in text
    assert "3 fakes without annotation" in text


def test_tables_are_well_formed(results: dict[str, Any]) -> None:
    rows = [line for line in tables.markdown(results).splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {8, 10}


def test_terminal_has_the_same_figures(results: dict[str, Any]) -> None:
    text = tables.terminal(results)
    for word in ("0.8000", "0.9500", "sdxl", "IoU 0.3000", "PixF1 0.4615", "5 annotated fakes"):
        assert word in text
    header, first, *_ = text.splitlines()
    assert header.index("F1") + 2 == len(first)  # columns line up


def test_without_a_heatmap_the_reason_is_given(results: dict[str, Any]) -> None:
    results |= {"heatmap": None, "no_heatmap": "windowed attention"}
    assert "None: windowed attention." in tables.markdown(results)
    assert "no heatmap: windowed attention" in tables.terminal(results)


def test_write(results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.write(tmp_path, results)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    before = (tmp_path / "results.md").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        tables.write(tmp_path, {**results, "run": "other"})
    assert (tmp_path / "results.md").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
