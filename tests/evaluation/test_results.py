import json
from pathlib import Path
from typing import Any

import pytest
import torch

from artifactnet import files
from artifactnet.evaluation import results as tables
from artifactnet.metrics.artifact_ratio import accuracy_by_ratio
from artifactnet.metrics.category_presence import presence_scores
from artifactnet.metrics.confusion import pixel_scores, verdict_scores
from artifactnet.metrics.pixels import PixelCounts
from artifactnet.metrics.segmentation import ROWS


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
            "all": verdict_scores(tp=7, fp=1, tn=9, fn=3),
            "generators": {"sdxl": verdict_scores(tp=4, fp=1, tn=9, fn=0)},
        },
        "heatmap": {**pixel_scores(30, 10, 60), **counts._asdict()},
        "no_masks": None,
        "masks": {"all": masks(40, 10, 50), "sdxl": masks(39, 10, 50), "flux": masks(1, 0, 0)},
        "presence": presence_scores(torch.tensor([[2, 1, 3, 4]] + [[0, 0, 0, 10]] * 6)),
        "by_artifact_ratio": accuracy_by_ratio(
            torch.tensor([0.005, 0.15, 0.16]), torch.tensor([False, True, False])
        ),
    }


def masks(tp: int, fp: int, fn: int) -> dict[str, Any]:
    """Table of one generator in which all artifacts are textures."""
    rows = {name: (0, 0, 0) for name in ROWS} | {ROWS[0]: (tp, fp, fn), ROWS[1]: (tp, fp, fn)}
    table: dict[str, Any] = {
        name: {**pixel_scores(*row), "tp": row[0], "fp": row[1], "fn": row[2]}
        for name, row in rows.items()
    }
    return table | {"evaluated_images": 5, "zero_prediction_images": 2, "unannotated_images": 3}


def test_segmentation_has_its_tables(results: dict[str, Any]) -> None:
    text = tables.markdown(results)
    for line in (
        "| category-agnostic | 0.4000 | 0.8000 | 0.4444 | 0.5714 | 40 | 10 | 50 |",
        "| low-level-texture | 0.4000 | 0.8000 | 0.4444 | 0.5714 | 40 | 10 | 50 |",
        "| low-level-color | 0.0000 | 0.0000 | 0.0000 | 0.0000 | 0 | 0 | 0 |",
        "| flux | 1.0000 | 1.0000 | 1.0000 | 1.0000 | 1 | 0 | 0 |",
        "| low-level-texture | 0.6667 | 0.4000 | 0.5000 |",
        "| up to 1% | 1 | 0.0000 |",
        "| up to 20% | 2 | 0.5000 |",
    ):
        assert line in text.splitlines(), line
    assert "5 images, 2 of them with an empty prediction" in text
    assert "masks at 0.4:  IoU 0.4000" in tables.terminal(results)


def test_without_masks_the_reason_is_given(results: dict[str, Any]) -> None:
    results |= {"masks": None, "presence": None, "no_masks": "no segmentation head"}
    assert "None: no segmentation head." in tables.markdown(results)
    assert "masks" not in tables.terminal(results)


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
    assert {row.count("|") for row in rows} == {4, 5, 8, 9, 10}


def test_terminal_has_the_same_figures(results: dict[str, Any]) -> None:
    text = tables.terminal(results)
    for word in ("0.8000", "0.9500", "sdxl", "IoU 0.3000", "PixF1 0.4615", "5 annotated fakes"):
        assert word in text
    header, first, *_ = text.splitlines()
    assert header.index("F1") + 2 == len(first)  # columns line up


def test_without_a_heatmap_the_reason_is_given(results: dict[str, Any]) -> None:
    results |= {"masks": None, "no_masks": "no segmentation head"}
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
