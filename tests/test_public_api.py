"""What `import artifactnet` offers, and that it costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import artifactnet

ROOT = Path(__file__).parent.parent
HEAVY = ("lightning", "torchmetrics", "transformers", "albumentations", "mmseg", "cv2")
HEAVY += ("matplotlib", "omegaconf", "pyarrow", "skimage", "sklearn")


def python(code: str) -> str:
    """Standard output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


STEPS = {
    "nothing": "import artifactnet",
    "small": "from artifactnet import Annotation, ArtifactNetError, CATEGORIES, Config, Prediction",
    "model": "from artifactnet import load_model, ArtifactNet",
}


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """Heavy packages in a fresh interpreter after each of the steps, taken one after another."""
    tell = f"print('loaded', *[m for m in {HEAVY!r} if m in sys.modules])"
    steps = [f"{step}\n{tell}" for step in STEPS.values()]
    lines = python("\n".join(["import sys", *steps])).splitlines()
    return {step: set(line.split()[1:]) for step, line in zip(STEPS, lines, strict=True)}


@pytest.mark.slow
def test_all_names_are_there():
    assert len(artifactnet.__all__) == len(set(artifactnet.__all__)) == 16
    assert set(artifactnet.__all__) <= set(dir(artifactnet))
    for name in artifactnet.__all__:
        assert getattr(artifactnet, name) is not None


@pytest.mark.parametrize(
    ("name", "home", "inner"),
    [
        ("load_model", "artifactnet.inference.predictor", "load_model"),
        ("load_config", "artifactnet.config", "load"),
        ("ArtifactNet", "artifactnet.models.artifact_net", "ArtifactNet"),
        ("CATEGORIES", "artifactnet.taxonomy", "CATEGORIES"),
        ("train", "artifactnet.training.trainer", "train"),
    ],
)
def test_a_name_is_the_object_of_its_home(name, home, inner):
    assert getattr(artifactnet, name) is getattr(sys.modules[home], inner)


def test_what_the_type_checker_sees_is_what_runs():
    """The TYPE_CHECKING block and the table of homes are two lists of the same names."""
    tree = ast.parse((ROOT / "artifactnet" / "__init__.py").read_text())
    block = next(
        n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    )
    typed = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == artifactnet._HOME
    assert {*typed, "__version__"} == set(artifactnet.__all__)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        artifactnet.load_modle  # noqa: B018
    with pytest.raises(ImportError):
        from artifactnet import nothing_of_the_kind  # noqa: F401


def test_import_costs_no_more_than_torch_and_half_a_second():
    clock = "start = time.perf_counter(); import artifactnet; print(time.perf_counter() - start)"
    # a second try for a machine that was busy with something else
    assert any(float(python(f"import time, torch; {clock}")) <= 0.5 for _ in range(2))


def test_import_loads_nothing_heavy(loaded):
    assert loaded["nothing"] == set()


def test_small_names_load_nothing_heavy(loaded):
    assert loaded["small"] == set()


def test_a_model_needs_no_training_stack(loaded):
    stack = {"lightning", "torchmetrics", "transformers", "albumentations", "mmseg", "pyarrow"}
    assert loaded["model"] & stack == set()


@pytest.mark.slow
def test_star_import(monkeypatch):
    for name in artifactnet._HOME:  # as if nobody had asked for one yet
        monkeypatch.delitem(vars(artifactnet), name, raising=False)
    names = {}
    exec("from artifactnet import *", names)
    assert set(artifactnet.__all__) <= set(names)
    assert (names["Predictor"].__name__, names["train"].__name__) == ("Predictor", "train")


def test_loaded_names_are_kept():
    """The second access is a plain attribute: no import machinery."""
    artifactnet.load_config  # noqa: B018
    assert "load_config" in vars(artifactnet)
    start = time.perf_counter()
    for _ in range(10_000):
        artifactnet.load_config  # noqa: B018
    assert time.perf_counter() - start < 0.5
