"""The benchmark of students counts and times what it says."""

import json
from pathlib import Path

import pytest
from perf.cli import main
from perf.student import benchmark_student

from artifactnet.types import ArtifactNetError

STUDENT = """
model:
  backbone: convnext_atto
  backbone_kwargs: {dims: [8, 8, 16, 16], depths: [1, 1, 1, 1]}
  heatmap: {head: decoder, width: 16}
loss: {alignment: {weight: 0}, heatmap: {focal: 1}}
"""


@pytest.fixture
def student(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(STUDENT)
    return str(path)


def test_multiply_adds_by_hand(student: str) -> None:
    report = benchmark_student([student], "vit_tiny_patch16_224", 64, 64, [], repeats=1)
    found = report["models"]["teacher"]
    tokens, width, depth = 17, 192, 12
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    patches = 16 * 3 * 16 * 16 * width
    backbone = depth * block + patches
    # the head's share is small and not counted by hand
    assert backbone < found["multiply_adds"] < 1.25 * backbone
    own = report["models"][student]
    assert own["times_fewer"] == pytest.approx(found["multiply_adds"] / own["multiply_adds"])
    assert set(report["forms"]) == {"teacher, torch", f"{student}, torch"}
    assert report["forms"]["teacher, torch"]["times_faster"]["median"] == 1


@pytest.mark.slow
def test_from_the_command_line(student: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "report.json"
    words = ["--teacher", "vit_tiny_patch16_224", "--teacher-size", "64", "--size", "64"]
    words += ["--students", student, "--formats", "onnx", "--repeats", "1", "--out", str(out)]
    assert main(["student", *words]) == 0
    report = json.loads(out.read_text())
    assert f"{student}, onnx" in report["forms"]
    assert "times fewer than the teacher" in capsys.readouterr().out


def test_unknown_format(student: str) -> None:
    with pytest.raises(ArtifactNetError, match=r"'tflite'"):
        benchmark_student([student], formats=["tflite"])
