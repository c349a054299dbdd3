"""Rows in the papers' order, and nothing for models and files without a heatmap head."""

import copy
from typing import Any

import pytest
import torch

from artifactnet.evaluation import results as tables
from artifactnet.evaluation.results import heatmap_sections as sections
from artifactnet.metrics.artifact_ratio import accuracy_by_ratio
from artifactnet.metrics.confusion import verdict_scores

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
def old() -> dict[str, Any]:
    """Results of a file written before there were heatmap heads."""
    return {
        "run": "r",
        "data": {"name": "demo", "root": None, "split": "test"},
        "model": {"backbone": "vit", "epoch": 1},
        "notices": [],
        "data_warnings": [],
        "threshold": 0.5,
        "map_threshold": 0.5,
        "images": 4,
        "authenticity": {"all": verdict_scores(1, 1, 1, 1), "generators": {}},
        "heatmap": None,
        "no_heatmap": "windowed attention",
        "masks": None,
        "presence": None,
        "no_masks": "no segmentation head",
        "by_artifact_ratio": accuracy_by_ratio(torch.zeros(0), torch.zeros(0, dtype=torch.bool)),
    }


@pytest.fixture
def new(old: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(old) | {
        "saliency": dict(SALIENCY),
        "scores": {"PLCC": 0.697, "SRCC": 0.683, "images": 950},
        "teacher": {"CC": 0.91234, "MSE": 0.0123456, "images": 40, "constant_images": 2},
    }


def test_row_is_the_papers(new: dict[str, Any]) -> None:
    lines = tables.markdown(new).splitlines()
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


def test_terminal_has_the_same_figures(new: dict[str, Any]) -> None:
    text = tables.terminal(new)
    assert "heatmap and score:  MSE (all) 0.00825  MSE (GT=0) 0.00014  KLD 1.634  CC 0.574" in text
    assert "PLCC 0.697  SRCC 0.683" in text
    assert "with the teacher:  CC 0.912  MSE 0.01235" in text


def test_agreement_is_told_of_groups_of_images(new: dict[str, Any]) -> None:
    groups = {
        "marked": {"CC": 0.95, "MSE": 0.02, "images": 17, "constant_images": 0},
        "real": {"CC": None, "MSE": 0.001, "images": 2, "constant_images": 2},
        "fake": {"CC": 0.9, "MSE": 0.03, "images": 38, "constant_images": 0},
    }
    teacher = new["teacher"] | groups | {"name": "tutor"}
    (section,) = sections(new | {"saliency": None, "scores": None, "teacher": teacher})
    cells = dict(zip(section.header, section.row, strict=True))
    assert cells == {
        **{"CC": "0.912", "MSE": "0.01235", "CC (marked)": "0.950", "MSE (marked)": "0.02000"},
        **{"CC (real)": "-", "MSE (real)": "0.00100", "CC (fake)": "0.900"},
        "MSE (fake)": "0.03000",
    }
    assert "the 17 images" in section.note
    assert "2 are real, 38 fake. The teacher is tutor." in section.note


def test_old_files_and_models_without_a_head_have_no_section(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    without = new | {"saliency": None, "scores": None, "teacher": None}
    assert sections(old) == sections(without) == []
    assert tables.markdown(old) == tables.markdown(without)
    assert tables.terminal(old) == tables.terminal(without)
    assert "AUC-Judd" not in tables.markdown(old)


def test_what_nothing_was_counted_for_is_a_dash_and_said(new: dict[str, Any]) -> None:
    clean = SALIENCY | dict.fromkeys(("KLD", "CC", "SIM", "AUC-Judd", "NSS")) | {"images": 55}
    (section,) = sections(new | {"saliency": clean, "scores": None, "teacher": None})
    assert section.row == ("0.00825", "0.00014", *["-"] * 7)
    assert "the 0 with one" in section.note
    assert "No image has a score." in section.note
    (section,) = sections(new | {"saliency": None, "teacher": None})
    assert section.row == (*["-"] * 7, "0.697", "0.683")
    assert section.note.startswith("No annotated image.")
    constant = {"CC": None, "MSE": 0.5, "images": 2, "constant_images": 2}
    (_, section) = sections(new | {"teacher": constant})
    assert section.row == ("-", "0.50000")
