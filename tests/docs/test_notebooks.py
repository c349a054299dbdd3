"""The notebooks run in a fresh kernel, and what they show is what they print."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def runner():
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package, reason="needs the extra test")
    path = NOTEBOOKS[0].parents[1] / "run_notebooks.py"
    spec = importlib.util.spec_from_file_location("run_notebooks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_two():
    assert len(NOTEBOOKS) == 2


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(runner, path, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = runner.run(path, tmp_path)
    saved = runner.nbformat.read(path, as_version=4)
    assert runner.nbformat.validate(saved) is None
    for new, old in zip(notebook.cells, saved.cells, strict=True):
        if new.cell_type == "code":
            # the same outputs; numbers may differ in the last digits
            kinds = [output.output_type for output in new.outputs if output.get("name") != "stderr"]
            assert kinds == [output.output_type for output in old.outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_saved_notebook_holds_no_trace_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 200_000
    for trace in ("/tmp/", "/home/", "/root/", "site-packages", "iopub"):
        assert trace not in text
