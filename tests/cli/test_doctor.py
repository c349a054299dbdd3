"""``artifactnet doctor``."""

import importlib.metadata
import platform
import sys

import pytest
import torch

import artifactnet
from artifactnet.cli import main
from artifactnet.runs import opencv, requirements
from artifactnet.runs.opencv import REMEDY, OpenCV
from artifactnet.runs.requirements import Requirements

GOOD = OpenCV({"opencv-python-headless": "5.0"}, "opencv-python-headless", None)
BOTH = {"opencv-python": "5.0", "opencv-python-headless": "5.0"}


@pytest.fixture
def says(monkeypatch, capsys):
    """What it prints about an environment, with the exit code."""

    def run(missing=(), extras=None, cv2=GOOD):
        found = Requirements({"torch": torch.__version__}, missing, extras or {})
        monkeypatch.setattr(requirements, "find_requirements", lambda: found)
        monkeypatch.setattr(opencv, "find_opencv", lambda: cv2)
        code = main(["doctor"])
        return code, capsys.readouterr().out

    return run


def test_this_environment(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    first = f"artifactnet {artifactnet.__version__}, Python {platform.python_version()}"
    assert out.startswith(first)
    for name in ("torch", "opencv-python-headless", "pillow"):
        assert f"  {name} {importlib.metadata.version(name)}" in out
    assert "threads of PyTorch" in out
    assert "is what import cv2 loads" in out
    assert out.endswith("all that ArtifactNet needs is there\n")


def test_a_missing_package_is_a_problem(says):
    code, out = says(missing=("timm>=1.0 (there is 0.9)",))
    assert code == 1
    assert "PROBLEM: timm>=1.0 (there is 0.9) is missing" in out
    assert out.endswith("1 problem\n")


def test_a_missing_extra_is_none(says):
    code, out = says(extras={"onnx": ("onnx>=1.16", "onnxscript"), "lora": ()})
    assert code == 0
    assert "  onnx: pip install 'artifactnet[onnx]' (missing: onnx>=1.16, onnxscript)" in out
    assert "  lora: installed" in out


def test_a_build_with_a_display_that_works_is_said(says):
    code, out = says(cv2=OpenCV(BOTH, "opencv-python", None))
    assert code == 0
    assert "opencv-python 5.0 is what import cv2 loads" in out
    assert "needs libGL" in out
    assert REMEDY in out


def test_an_opencv_that_fails_is_a_problem(says):
    code, out = says(missing=("x",), cv2=OpenCV(BOTH, "opencv-python", "ImportError: libGL.so.1"))
    assert code == 1
    assert f"PROBLEM: import cv2 fails (ImportError: libGL.so.1); {REMEDY}" in out
    assert out.endswith("2 problems\n")


def test_a_torch_that_fails_is_a_problem(says, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out = says()
    assert code == 1
    assert "PROBLEM: import torch fails" in out


def test_devices(says, monkeypatch):
    class Properties:
        name, total_memory = "NVIDIA H200", 139 * 2**30

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Properties)
    _, out = says()
    assert "  cuda:0: NVIDIA H200, 139 GiB" in out
    assert "no GPU" not in out
