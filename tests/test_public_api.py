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


def loaded_after(code: str) -> set[str]:
    line = f"import sys\n{code}\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    return set(python(line).split())


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
        ("train", "artifactnet.engine.trainer", "train"),
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
    clock = (
        "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
    )
    torch = min(float(python(clock.format("torch"))) for _ in range(2))
    ours = min(float(python(clock.format("artifactnet"))) for _ in range(2))
    assert ours <= torch + 0.5


def test_import_loads_nothing_heavy():
    assert loaded_after("import artifactnet") == set()


def test_small_names_load_nothing_heavy():
    code = "from artifactnet import Annotation, ArtifactNetError, CATEGORIES, Config, Prediction"
    assert loaded_after(code) == set()


def test_a_model_needs_no_training_stack():
    stack = {"lightning", "torchmetrics", "transformers", "albumentations", "mmseg", "pyarrow"}
    assert loaded_after("from artifactnet import load_model, ArtifactNet") & stack == set()


@pytest.mark.slow
def test_star_import():
    out = python("from artifactnet import *; print(Predictor.__name__, train.__name__)")
    assert out == "Predictor train"


def test_loaded_names_are_kept():
    """The second access is a plain attribute: no import machinery."""
    artifactnet.load_config  # noqa: B018
    assert "load_config" in vars(artifactnet)
    start = time.perf_counter()
    for _ in range(10_000):
        artifactnet.load_config  # noqa: B018
    assert time.perf_counter() - start < 0.5
