"""Results as tables: every figure with its counts, rows in the papers' order."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from artifactnet import files
from artifactnet.evaluation import results as tables
from artifactnet.evaluation.results import heatmap_sections as sections
from artifactnet.evaluation.tables import markdown_table, mean_spread, mean_std
from artifactnet.metrics.artifact_ratio import accuracy_by_ratio
from artifactnet.metrics.category_presence import presence_scores
from artifactnet.metrics.confusion import pixel_scores, verdict_scores
from artifactnet.metrics.pixels import PixelCounts
from artifactnet.metrics.segmentation import ROWS

SALIENCY = {
    "MSE": 0.008254,
    "MSE GT=0": 0.00014,
    "KLD": 1.634,
    "CC": 0.574,
    "SIM": 0.417,
    "AUC-Judd": 0.915,
    "NSS": 1.2346,
    "images": 955,
    "empty_images": 55,
    "unannotated_images": 3,
    "counts": {},
}


@pytest.fixture
def results() -> dict[str, Any]:
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
        "heatmap": heatmap(30, 10, 60),
        "no_masks": None,
        "masks": {"all": masks(40, 10, 50), "sdxl": masks(39, 10, 50), "flux": masks(1, 0, 0)},
        "presence": presence_scores(torch.tensor([[2, 1, 3, 4]] + [[0, 0, 0, 10]] * 6)),
        "by_artifact_ratio": accuracy_by_ratio(
            torch.tensor([0.005, 0.15, 0.16]), torch.tensor([False, True, False])
        ),
    }


@pytest.fixture
def headed(results: dict[str, Any]) -> dict[str, Any]:
    """Results of a model with a heatmap head; the others are as before there were any."""
    return results | {
        "saliency": dict(SALIENCY),
        "scores": {"PLCC": 0.697, "SRCC": 0.683, "images": 950},
        "teacher": {"CC": 0.91234, "MSE": 0.0123456, "images": 40, "constant_images": 2},
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


def test_heatmaps_have_a_row_per_generator_if_there_are_several(results: dict[str, Any]) -> None:
    before = tables.markdown(results), tables.terminal(results)  # files of before have none
    generators = {"sdxl": heatmap(30, 10, 10), "flux": heatmap(0, 0, 50)}
    results["heatmap_generators"] = {"sdxl": results["heatmap"]}
    assert (tables.markdown(results), tables.terminal(results)) == before  # a single one is all
    results["heatmap_generators"] = generators
    lines = tables.markdown(results).splitlines()
    head = "| generator | IoU | PixP | PixR | PixF1 | TP | FP | FN | images | "
    assert head + "of them with an empty map |" in lines
    assert "| sdxl | 0.6000 | 0.7500 | 0.7500 | 0.7500 | 30 | 10 | 10 | 5 | 2 |" in lines
    assert "| flux | 0.0000 | 0.0000 | 0.0000 | 0.0000 | 0 | 0 | 50 | 5 | 2 |" in lines
    text = tables.terminal(results)
    assert "\n  sdxl:  IoU 0.6000  PixP 0.7500" in text
    assert text.index("heatmap at 0.4") < text.index("  sdxl:") < text.index("  flux:")
    results["heatmap"] = results["heatmap_generators"] = None
    results["no_heatmap"] = "no attention"
    assert "None: no attention." in tables.markdown(results)


def heatmap(tp: int, fp: int, fn: int) -> dict[str, Any]:
    return {**pixel_scores(tp, fp, fn), **PixelCounts(tp, fp, fn, 5, 2, 3)._asdict()}


def test_every_figure_has_its_counts_beside_it(results: dict[str, Any]) -> None:
    lines = tables.markdown(results).splitlines()
    assert "| all | 10 | 10 | 0.8000 | 0.8750 | 0.7000 | 0.7778 |" in lines
    assert "| sdxl | 4 | 10 | 0.9500 | 0.8000 | 1.0000 | 0.8889 |" in lines
    assert "| 0.3000 | 0.7500 | 0.3333 | 0.4615 | 30 | 10 | 60 | 5 | 2 |" in lines
    text = "\n".join(lines)
    for word in ("> **Warning:** weights are RANDOM", "real is JPEG", "epoch 4", "above 0.4"):
        assert word in text
    assert "3 fakes without annotation" in text


def test_terminal_has_the_same_figures(results: dict[str, Any], headed: dict[str, Any]) -> None:
    text = tables.terminal(results)
    for word in ("0.8000", "0.9500", "sdxl", "IoU 0.3000", "PixF1 0.4615", "5 annotated fakes"):
        assert word in text
    header, first, *_ = text.splitlines()
    assert header.index("F1") + 2 == len(first)  # columns line up
    text = tables.terminal(headed)
    assert "heatmap and score:  MSE (all) 0.00825  MSE (GT=0) 0.00014  KLD 1.634  CC 0.574" in text
    assert "PLCC 0.697  SRCC 0.683" in text
    assert "with the teacher:  CC 0.912  MSE 0.01235" in text


def test_without_masks_and_heatmaps_the_reason_is_given(results: dict[str, Any]) -> None:
    results |= {"masks": None, "presence": None, "no_masks": "no segmentation head"}
    results |= {"heatmap": None, "no_heatmap": "windowed attention"}
    text = tables.markdown(results)
    assert "None: no segmentation head." in text
    assert "None: windowed attention." in text
    assert "no heatmap: windowed attention" in tables.terminal(results)
    assert "masks" not in tables.terminal(results)


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


def test_row_is_the_papers(headed: dict[str, Any]) -> None:
    lines = tables.markdown(headed).splitlines()
    header = lines.index(
        "| MSE (all) | MSE (GT=0) | KLD | CC | SIM | AUC-Judd | NSS | PLCC | SRCC |"
    )
    row = "| 0.00825 | 0.00014 | 1.634 | 0.574 | 0.417 | 0.915 | 1.235 | 0.697 | 0.683 |"
    assert lines[header + 2] == row
    assert lines[header + 1].count("---") == 9
    text = "\n".join(lines)
    for words in ("over 955 annotated", "the 55 without", "the 900 with one", "3 images without"):
        assert words in text, words
    assert "PLCC and SRCC over 950 images" in text
    assert "| 0.912 | 0.01235 |" in lines
    assert "Means over 40 images; the CC leaves out 2" in text


def test_old_files_and_models_without_a_head_have_no_section(
    results: dict[str, Any], headed: dict[str, Any]
) -> None:
    without = headed | {"saliency": None, "scores": None, "teacher": None}
    assert sections(results) == sections(without) == []
    assert tables.markdown(results) == tables.markdown(without)
    assert tables.terminal(results) == tables.terminal(without)
    assert "AUC-Judd" not in tables.markdown(results)


def test_what_nothing_was_counted_for_is_a_dash_and_said(headed: dict[str, Any]) -> None:
    clean = SALIENCY | dict.fromkeys(("KLD", "CC", "SIM", "AUC-Judd", "NSS")) | {"images": 55}
    (section,) = sections(headed | {"saliency": clean, "scores": None, "teacher": None})
    assert section.row == ("0.00825", "0.00014", *["-"] * 7)
    assert "the 0 with one" in section.note
    assert "No image has a score." in section.note
    (section,) = sections(headed | {"saliency": None, "teacher": None})
    assert section.row == (*["-"] * 7, "0.697", "0.683")
    assert section.note.startswith("No annotated image.")
    constant = {"CC": None, "MSE": 0.5, "images": 2, "constant_images": 2}
    (_, section) = sections(headed | {"teacher": constant})
    assert section.row == ("-", "0.50000")


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_spread_is_mean_and_sample_deviation(values):
    mean, std = mean_std(values)
    assert mean == pytest.approx(np.mean(values), abs=1e-12)
    assert std == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert mean_spread(values, 2) == f"{mean:.2f} ± {std:.2f}"


def test_one_value_has_no_spread_and_none_has_no_figure():
    assert mean_std([0.0]) == (0.0, None)
    assert mean_spread([0.0]) == "0.000"
    assert mean_spread([]) == ""


def test_table_has_a_line_per_row_below_header_and_rule():
    table = markdown_table(("a", "b"), [("1", "2"), ("3", "")])
    assert table == ["| a | b |", "| --- | --- |", "| 1 | 2 |", "| 3 |  |"]
