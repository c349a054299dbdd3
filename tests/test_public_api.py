"""What `import artifactnet` offers, and that it costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import artifactnet

ROOT = Path(__file__).parent.parent
HEAVY = ("lightning", "torchmetrics", "transformers", "albumentations", "mmseg", "cv2")
HEAVY += ("matplotlib", "omegaconf", "pyarrow", "skimage", "sklearn", "scipy")
TRAINING = {"lightning", "torchmetrics", "transformers", "albumentations", "mmseg", "pyarrow"}
# statement -> heavy packages that it must not load, one statement after another
STEPS = {
    "import artifactnet": {*HEAVY, "torch"},
    "from artifactnet import Annotation, CATEGORIES, Config, ModelConfig, Prediction": set(HEAVY),
    "from artifactnet import load_model, create_model, ArtifactNet": TRAINING,
}


def test_every_public_name_is_there():
    assert len(artifactnet.__all__) == len(set(artifactnet.__all__))
    assert set(artifactnet.__all__) <= set(dir(artifactnet))
    for name in artifactnet.__all__:
        assert getattr(artifactnet, name) is not None
    names = {}
    exec("from artifactnet import *", names)
    assert set(artifactnet.__all__) <= set(names)


def test_public_functions_are_not_hidden_by_packages():
    """`artifactnet.export` stays the function after its package was imported."""
    import artifactnet.explanation.report
    import artifactnet.exporters.export

    for name in artifactnet.__all__:
        if name[0].islower():
            assert callable(getattr(artifactnet, name)), name


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
    with pytest.raises(AttributeError, match="load_modle"):
        artifactnet.load_modle  # noqa: B018
    with pytest.raises(ImportError):
        from artifactnet import nothing_of_the_kind  # noqa: F401


def test_imports_load_nothing_that_they_do_not_need():
    packages = ("torch", *HEAVY)
    show = f"print(*[m for m in {packages!r} if m in sys.modules])"
    code = "\n".join(["import sys", *(f"{step}\n{show}" for step in STEPS)])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for (step, unwanted), line in zip(STEPS.items(), done.stdout.split("\n"), strict=False):
        assert unwanted & set(line.split()) == set(), step
