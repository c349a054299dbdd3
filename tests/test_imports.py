"""The house rules that a machine can check: who imports whom, and how big things may grow."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "artifactnet"
FILES = sorted(PACKAGE.rglob("*.py"))
TOOLS = sorted((ROOT / "tools").glob("*.py"))

BASE = {"types", "taxonomy", "config", "files"}
INFERENCE = {*BASE, "inference", "models", "data.transforms", "data.images"}
INFERENCE |= {"data.geometry", "data.shards"}
INFERENCE |= {"__version__"}  # exported files say what wrote them

# part of the package -> parts of ours that it may import (a part covers what is below it)
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "taxonomy": set(),
    "files": set(),
    "weights": set(),
    "rules": set(),
    "schema": set(),
    "config": {"types", "taxonomy", "rules", "schema"},
    "data": {*BASE, "data"},
    "models": {*BASE, "models"},
    "losses": {"types", "taxonomy", "losses"},  # tensors and numbers, never configs
    "metrics": {"types", "taxonomy", "metrics"},
    "inference": INFERENCE,
    "explanation": {*INFERENCE, "explanation", "metrics"},
    "engine": {*BASE, "engine", "data", "models", "losses", "metrics", "explanation.overlay"},
    # whole experiments: trained, judged and tabled
    "experiments": {*INFERENCE, "experiments", "data", "engine", "explanation", "metrics"},
    # the full HEIE: needs the extra, so that nothing but the command line imports it
    "mllm": {*INFERENCE, "mllm", "data", "losses", "metrics", "engine", "experiments"},
    "cli": {
        *("", "cli", "types", "taxonomy", "config", "files"),
        *("data", "engine", "inference", "explanation", "experiments", "mllm"),
    },
    "__main__": {"cli"},
    # the public names, each imported on first use
    "__init__": {
        *("types", "taxonomy", "config"),
        *("data", "engine", "explanation", "inference", "models"),
    },
}

# third-party package -> the only places that may import it
OWNERS: dict[str, tuple[str, ...]] = {
    "albumentations": ("data/transforms.py",),
    "omegaconf": ("config.py",),
    "timm": ("models/backbone.py",),
    "mmseg": ("models/upernet_head.py",),
    "mmcv": ("models/upernet_head.py",),
    "mmengine": ("models/upernet_head.py",),
    "pytorch_grad_cam": ("explanation/cam.py",),
    "jinja2": ("explanation/report/page.py",),
    "playwright": (),
    "peft": ("models/lora.py", "mllm/adapters.py"),
    "lightning": ("engine/", "mllm/"),
    "torchmetrics": ("metrics/", "engine/", "mllm/"),
    "openai": ("mllm/endpoint.py",),
    "accelerate": (),  # transformers imports it
    "transformers": ("mllm/",),
    "onnx": ("inference/onnx_file.py",),
    "onnxscript": (),  # torch.onnx imports it
    "onnxruntime": ("inference/onnx_runtime.py",),
    "openvino": ("inference/openvino_file.py",),
    "nncf": ("inference/openvino_file.py",),
    "ray": (),
}
# these cost seconds, so only the function that needs them imports them
INSIDE_FUNCTIONS = {
    "albumentations",
    "omegaconf",
    "mmseg",
    "mmcv",
    "mmengine",
    "pytorch_grad_cam",
    "peft",
    "transformers",
    "openai",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "matplotlib",
    "jinja2",
    "skimage",
    "sklearn",
}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def part_of(path: Path) -> str:
    """``models`` for artifactnet/models/rollout.py, ``cli`` for artifactnet/cli.py."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported(tree: ast.AST) -> list[tuple[str, int]]:
    """Every dotted name that an import statement of the tree may load, with its line."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            # `from artifactnet.data import images` loads artifactnet.data.images
            names += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return names


def outside_functions(tree: ast.Module) -> list[tuple[str, int]]:
    """Imports that run when the module is loaded; those for type checkers do not run."""
    found: list[tuple[str, int]] = []
    queue: list[ast.AST] = list(tree.body)
    while queue:
        node = queue.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            queue += node.orelse
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += imported(node)
        else:
            queue += list(ast.iter_child_nodes(node))
    return found


def breaches(source: str, part: str, where: str) -> list[str]:
    """Sentences about every import of ours that ``part`` may not make."""
    allowed = ALLOWED.get(part)
    if allowed is None:
        return [f"{where}: {part} has no line in ALLOWED"]
    out = []
    for name, line in imported(ast.parse(source)):
        head, _, rest = name.partition(".")
        if head != "artifactnet":
            continue
        fits = any(rest == a or rest.startswith(f"{a}.") for a in allowed if a)
        # `from artifactnet import name` is the public API, for the command line alone
        public = "" in allowed and "." not in rest
        if not (fits or public):
            out.append(f"{where}:{line}: {part} may not import {name}")
    return out


def third_party_breaches(source: str, relative: str) -> list[str]:
    tree = ast.parse(source)
    out = []
    for name, line in imported(tree):
        owners = OWNERS.get(name.partition(".")[0])
        if owners is not None and not any(
            relative == o or (o.endswith("/") and relative.startswith(o)) for o in owners
        ):
            out.append(f"{relative}:{line}: {name} belongs to {', '.join(owners) or 'nobody'}")
    for name, line in outside_functions(tree):
        if name.partition(".")[0] in INSIDE_FUNCTIONS:
            out.append(f"{relative}:{line}: import {name} inside the function that needs it")
    return out


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def undocumented(source: str) -> list[str]:
    """Public functions, methods and classes without docstring or full annotations."""
    out = []
    queue: list[tuple[ast.AST, str]] = [(ast.parse(source), "")]
    while queue:
        node, prefix = queue.pop()
        for child in getattr(node, "body", []):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                if child.name.startswith("_") and child.name != "__init__":
                    continue
                out += _gaps(child, prefix + child.name)
                if isinstance(child, ast.ClassDef):
                    queue.append((child, f"{prefix}{child.name}."))
    return out


def _gaps(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> list[str]:
    decorators = [ast.unparse(d) for d in node.decorator_list]
    if "overload" in decorators:
        return []
    gaps = []
    needs_docstring = node.name != "__init__" and "override" not in decorators
    if needs_docstring and ast.get_docstring(node) is None:
        gaps.append(f"line {node.lineno}: {name} has no docstring")
    if isinstance(node, ast.ClassDef):
        return gaps
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    bare = [a.arg for a in named if a.annotation is None and a.arg not in ("self", "cls")]
    if bare:
        gaps.append(f"line {node.lineno}: {name} has no annotation for {', '.join(bare)}")
    if node.returns is None and node.name != "__init__":
        gaps.append(f"line {node.lineno}: {name} has no return annotation")
    return gaps


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_parts_import_only_what_they_may(path):
    assert breaches(path.read_text(), part_of(path), name_of(path)) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_third_party_packages_stay_in_their_one_place(path):
    assert third_party_breaches(path.read_text(), str(path.relative_to(PACKAGE))) == []


@pytest.mark.parametrize("path", TOOLS, ids=name_of)
def test_tools_are_thin(path):
    ours = [n for n, _ in imported(ast.parse(path.read_text())) if n.startswith("artifactnet")]
    assert ours == ["artifactnet.cli.main"]
    code = [line for line in path.read_text().splitlines() if line and not line.startswith('"""')]
    assert len(code) <= 5


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_sizes(path):
    source = path.read_text()
    assert source.count("\n") <= MAX_FILE_LINES
    long = [
        f"{f.name}: {f.end_lineno - f.lineno + 1} lines"
        for f in functions(ast.parse(source))
        if f.end_lineno - f.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert long == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_names_are_documented_and_typed(path):
    assert undocumented(path.read_text()) == []


def test_every_file_of_a_folder_is_in_a_package():
    folders = {path.parent for path in FILES}
    assert [name_of(f) for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


def test_no_import_cycle_between_modules_at_load_time():
    """Two of our modules that need each other to load would depend on who comes first."""
    names = {module_of(p).removesuffix(".__init__") for p in FILES}
    needs: dict[str, set[str]] = {}
    for path in FILES:
        module = module_of(path).removesuffix(".__init__")
        loaded = {n for n, _ in outside_functions(ast.parse(path.read_text()))}
        needs[module] = {
            candidate
            for n in loaded
            for candidate in (n, n.rpartition(".")[0])
            if candidate in names and candidate not in (module, "artifactnet")
        }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for other in sorted(needs[module]):
                # `from package import submodule` inside the package itself is no cycle
                if not module.startswith(f"{other}."):
                    visit(other, (*trail, module))
            done.add(module)

    for module in sorted(needs):
        visit(module, ())


# The checks above are only worth what they catch.


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("models", "from artifactnet.data import folder"),
        ("models", "import artifactnet.data.sources.folder"),
        ("data", "from artifactnet.models.attention.rollout import patch_map"),
        ("losses", "from artifactnet.config import LossConfig"),
        ("inference", "from artifactnet.data.sources.folder import build"),
        ("engine", "from artifactnet.inference.predictor import Predictor"),
        ("engine", "from artifactnet.explanation import cam"),
        ("explanation", "from artifactnet.engine import samples"),
        ("engine", "from artifactnet.experiments import table"),
        ("engine", "from artifactnet.mllm import teacher"),
        ("experiments", "from artifactnet.mllm import trainer"),
        ("types", "from artifactnet import taxonomy"),
        ("data", "def f():\n    from artifactnet.engine import trainer"),
        ("elsewhere", "import os"),
    ],
)
def test_a_forbidden_import_is_caught(part, line):
    assert len(breaches(line, part, "x.py")) == 1


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("engine", "from artifactnet.explanation.overlay import grid"),
        ("engine", "from artifactnet.explanation import overlay"),
        ("inference", "from artifactnet.data import images"),
        ("cli", "from artifactnet import load_model"),
        ("data", "import numpy as np"),
    ],
)
def test_an_allowed_import_passes(part, line):
    assert breaches(line, part, "x.py") == []


@pytest.mark.parametrize(
    ("relative", "source"),
    [
        ("models/x.py", "import lightning as L"),
        ("models/x.py", "from timm.models import create_model"),
        ("data/x.py", "def f():\n    import albumentations as A"),
        ("data/transforms.py", "import albumentations as A"),
        ("config.py", "try:\n    import omegaconf\nexcept ImportError:\n    pass"),
        ("metrics/x.py", "import transformers.models\nimport os"),
    ],
)
def test_a_misplaced_package_is_caught(relative, source):
    assert third_party_breaches(source, relative)


@pytest.mark.parametrize(
    ("relative", "source"),
    [
        ("data/transforms.py", "def f():\n    import albumentations as A"),
        ("models/backbone.py", "import timm"),
        ("config.py", "if TYPE_CHECKING:\n    import omegaconf"),
        ("engine/x.py", "import lightning"),
    ],
)
def test_a_well_placed_package_passes(relative, source):
    assert third_party_breaches(source, relative) == []


@pytest.mark.parametrize(
    "source",
    [
        "def f(x: int) -> int:\n    return x",
        'def f(x) -> int:\n    """Doc."""',
        'def f(x: int):\n    """Doc."""',
        'def f(*x) -> int:\n    """Doc."""',
        "class A:\n    x = 1",
        'class A:\n    """Doc."""\n    def f(self) -> None:\n        pass',
        'class A:\n    """Doc."""\n    def __init__(self, x) -> None:\n        pass',
    ],
)
def test_a_gap_in_documentation_is_caught(source):
    assert len(undocumented(source)) == 1


def test_private_names_need_no_docstring():
    assert undocumented("def _f(x):\n    return x\nclass _A:\n    def g(self): pass") == []
