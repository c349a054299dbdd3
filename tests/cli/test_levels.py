"""Stated white of deep images and meanings of mask levels, from the option to the answer."""

import json

import cv2
import numpy as np
import pytest

from artifactnet.cli import main
from artifactnet.config import load
from artifactnet.data.sources.folder import build_folder_splits
from artifactnet.taxonomy import BY_LABEL
from artifactnet.types import ArtifactNetError

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """Twelve images of up to 3000 levels; masks of three kinds for the fakes."""
    for label in ("real", "fake", "masks"):
        (tmp_path / label).mkdir()
    mask = np.zeros((32, 32), np.uint8)
    mask[:8], mask[12:20], mask[24:] = 60, 100, 255
    for k in range(12):
        label = ("real", "fake")[k % 2]
        values = RNG.integers(0, 3000, (32, 32), dtype=np.uint16)
        values[0, 0] = 3000
        cv2.imwrite(str(tmp_path / label / f"{k}.png"), values)
        if label == "fake":
            cv2.imwrite(str(tmp_path / "masks" / f"{k}.png"), mask)
    return tmp_path


def fake_sample(folder, *overrides):
    options = ["data.name=folder", f"data.root={folder}", *overrides]
    source = build_folder_splits(load("dinov2_align", options).data, 0)["train"]
    return source.load(next(k for k, r in enumerate(source.records) if r.label == 1))


def test_predict_takes_the_stated_white(folder, tmp_path, capsys):
    command = ["predict", str(folder / "real"), "--model", "student-nano", "--no-heatmaps"]
    assert main([*command, "--out", str(tmp_path / "a")]) == 1
    assert "--levels" in capsys.readouterr().err
    assert main([*command, "--levels", "4095", "--out", str(tmp_path / "b")]) == 0
    assert main([*command, "--levels", "65535", "--out", str(tmp_path / "c")]) == 0
    found = [
        [json.loads(line)["probability"] for line in path.read_text().splitlines()]
        for path in (tmp_path / "b" / "predictions.jsonl", tmp_path / "c" / "predictions.jsonl")
    ]
    assert len(found[0]) == len(found[1]) == 6
    assert found[0] != found[1]


def test_training_data_takes_white_and_meanings(folder):
    meanings = "data.mask_levels={60: artifact, 100: low-level-color, 255: none}"
    sample = fake_sample(folder, "data.levels=4095", meanings)
    assert sample.image.max() == round(3000 * 255 / 4095)
    bits = BY_LABEL["low-level-color"].bit
    assert [sample.mask[row, 0] for row in (0, 10, 15, 30)] == [1, 0, bits, 0]
    for overrides, problem in (
        ((meanings,), "--levels"),
        (("data.levels=4095",), "data.mask_levels"),
        (("data.levels=4095", "data.mask_levels={60: artifact}"), "levels 100, 255 are not"),
    ):
        with pytest.raises(ArtifactNetError, match=problem):
            fake_sample(folder, *overrides)
