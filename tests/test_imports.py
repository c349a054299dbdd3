"""The architecture as a test: who imports whom, no circles, heavy packages in one place."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "artifactnet"
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCES
}

BASE = {"types", "taxonomy", "config", "schema", "rules", "files", "names", "values", "weights"}
# what opens a saved model on a language model
LANGUAGE_MODELS = {f"vlm.{name}.{part}" for name in ("heie", "fakexplainer")
                   for part in ("predictor", "saving")}  # fmt: skip
INFERENCE = {*BASE, "inference", "models", "data", *LANGUAGE_MODELS}
TRAINING = {*INFERENCE, "runs", "losses", "metrics", "distillation", "evaluation", "training"}

# part of the package -> parts that it may import, lazily too; the longest matching part counts
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "taxonomy": set(),
    "files": set(),
    "names": set(),
    "weights": set(),
    "schema": set(),
    "rules": {"schema", "taxonomy"},
    "values": set(),
    "config": {"types", "taxonomy", "rules", "schema", "values"},
    "data": {*BASE, "data"},
    "data.sources.demo": {*BASE, "data", "vlm.text"},  # what was done to an image, in words
    "models": {*BASE, "models"},
    "losses": {"types", "taxonomy", "losses"},  # tensors and numbers, never configs
    "metrics": {"types", "taxonomy", "metrics"},
    "runs": {*BASE, "runs"},
    "benchmarks": {*BASE, "benchmarks", "data", "metrics", "evaluation.tables"},
    "inference": INFERENCE - LANGUAGE_MODELS,
    "inference.load": INFERENCE,  # the one place that opens every kind of model
    # a detector on the hub, with the results of its run
    "inference.publish": {*INFERENCE, "runs"},
    "inference.model_card": {*INFERENCE, "runs", "evaluation.tables"},
    "exporters": {*INFERENCE, "exporters", "metrics"},
    "explanation": {*INFERENCE, "explanation", "metrics", "evaluation.tables"},
    # these two open runs with their data
    "explanation.judge": {*INFERENCE, "explanation", "metrics", "evaluation"},
    "explanation.report.build": {*INFERENCE, "explanation", "evaluation", "runs"},
    "explanation.report.qreal": {*INFERENCE, "explanation", "metrics", "vlm"},
    "demo": {*INFERENCE, "demo", "explanation", "serving.guard"},
    "llm": {"types", "files", "data", "metrics", "llm", "config"},
    "annotation": {*BASE, "annotation", "data", "llm", "inference", "metrics", "vlm.text",
                   "explanation.report.html"},
    # vision-language models need the extra `mllm`
    "vlm": {*BASE, "data", "models", "inference", "metrics", "vlm"},
    "vlm.text": {"types", "taxonomy", "metrics.claims", "vlm.text"},  # `data` imports it
    "vlm.heie.module": {*TRAINING, "vlm"},
    "vlm.heie.trainer": {*TRAINING, "vlm"},
    "vlm.heie.data": {*TRAINING, "vlm"},
    "vlm.heie.evaluate": {*TRAINING, "vlm", "llm"},
    "vlm.fakexplainer.evaluate": {*TRAINING, "vlm", "llm"},
    "vlm.fakexplainer.pages": {*BASE, "evaluation", "vlm"},
    "vlm.tuning_run": {*TRAINING, "vlm"},
    "vlm.fakexplainer.trainer": {*TRAINING, "vlm"},
    "vlm.tuning_arguments": {*BASE, "training", "vlm"},
    "vlm.tuning_callbacks": {*BASE, "training", "vlm"},
    "vlm.sft": {*BASE, "training", "vlm"},
    "vlm.grpo": {*BASE, "training", "vlm"},
    "vlm.fakexplainer.endpoint": {*BASE, "data", "inference", "llm", "vlm"},
    "vlm.questions": {*INFERENCE, "llm", "vlm"},
    "vlm.question_log": {*BASE, "inference", "llm", "vlm"},
    "vlm.qreal.trainer": {*TRAINING, "vlm"},
    "vlm.xaigd.trainer": {*TRAINING, "vlm"},
    "vlm.xaigd": {*INFERENCE, "benchmarks", "evaluation.tables", "llm", "metrics", "vlm"},
    "vlm.qreal": {*INFERENCE, "evaluation.tables", "llm", "metrics", "vlm"},
    "distillation": {*INFERENCE, "distillation", "runs", "vlm.text.template"},
    "evaluation": {*INFERENCE, "evaluation", "distillation", "runs", "metrics"},
    "training": {*TRAINING, "explanation.overlay"},
    "serving": {*INFERENCE, "serving"},
    "cluster": {*INFERENCE, "cluster"},
    "api": {*TRAINING, "api", "vlm", "llm"},
    "experiments": {*TRAINING, "experiments", "explanation", "vlm", "llm", "api"},
    "cli": {*TRAINING, "", "cli", "api", "benchmarks", "exporters", "explanation", "experiments",
            "llm", "annotation", "cluster", "serving", "vlm", "demo"},
    "__main__": {"cli"},
}  # fmt: skip

# third-party package -> the only places that may import it
OWNERS: dict[str, tuple[str, ...]] = {
    "albumentations": ("data/transforms.py",),
    "google_crc32c": ("data/converters/tfrecord.py",),
    "omegaconf": ("config.py",),
    "timm": ("models/import_timm.py",),
    "huggingface_hub": ("models/hub.py",),
    "mmseg": ("models/heads/upernet.py",),
    "mmcv": ("models/heads/upernet.py",),
    "mmengine": ("models/heads/upernet.py",),
    "pytorch_grad_cam": ("explanation/cam.py",),
    "jinja2": ("explanation/report/html.py",),
    "gradio": ("demo/page.py",),
    "playwright": (),
    "peft": ("models/lora.py", "vlm/base.py"),
    "lightning": ("training/", "vlm/heie/"),
    "torchmetrics": ("metrics/", "evaluation/", "training/", "vlm/heie/"),
    "openai": ("llm/client.py",),
    "accelerate": (),  # transformers imports it
    "transformers": ("vlm/",),
    "trl": ("vlm/sft.py", "vlm/grpo.py"),
    "datasets": ("vlm/sft.py", "vlm/grpo.py"),
    "onnx": ("exporters/onnx.py",),
    "onnxscript": (),  # torch.onnx imports it
    "onnxruntime": ("inference/backends/onnx.py", "exporters/onnx.py"),
    "openvino": ("inference/backends/openvino.py", "exporters/openvino.py"),
    "nncf": ("exporters/openvino.py",),
    "fastapi": ("serving/app.py",),
    "starlette": ("serving/app.py", "demo/page.py"),  # Gradio is built on it
    "pydantic": ("serving/schema.py",),
    "uvicorn": ("serving/server.py", "serving/connections.py"),
    "python_multipart": ("serving/multipart.py",),
    "prometheus_client": ("serving/metrics.py",),
    "ray": ("cluster/engine.py",),
    "fsspec": ("cluster/storage.py",),
}
# these cost seconds, so only the function that needs them imports them
INSIDE_FUNCTIONS = {
    *("albumentations", "omegaconf", "mmseg", "mmcv", "mmengine", "pytorch_grad_cam", "peft"),
    *("transformers", "openai", "onnx", "onnxruntime", "openvino", "nncf", "matplotlib", "jinja2"),
    *("skimage", "sklearn", "scipy", "google_crc32c", "trl", "datasets", "gradio", "ray"),
    *("fastapi", "starlette", "pydantic", "uvicorn", "python_multipart", "prometheus_client"),
}
# loaded when a training or a server starts and not before; their classes derive from those of the
# packages, or import such classes
LOADED_LATE = {
    *(f"vlm/{name}.py" for name in ("tuning_callbacks", "sft", "grpo")),
    *(f"serving/{name}.py" for name in ("app", "connections", "metrics", "model_info")),
    *(f"serving/{name}.py" for name in ("multipart", "schema", "server", "uploads")),
}


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
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found += imported(node)
        else:
            queue += list(ast.iter_child_nodes(node))
    return found


def below(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def breaches(source: str, module: str) -> list[str]:
    """Every import of ours that ``module`` (dotted, without ``artifactnet.``) may not make."""
    parts = [part for part in ALLOWED if below(module, part)]
    if not parts:
        return [f"{module}: no line in ALLOWED"]
    allowed = ALLOWED[max(parts, key=len)]
    out = []
    for name, line in imported(ast.parse(source)):
        head, _, rest = name.partition(".")
        if head != "artifactnet" or any(below(rest, part) for part in allowed if part):
            continue
        # `from artifactnet import name` is the public API, for the command line alone
        if not ("" in allowed and "." not in rest):
            out.append(f"{module}:{line}: may not import {name}")
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
        if name.partition(".")[0] in INSIDE_FUNCTIONS and relative not in LOADED_LATE:
            out.append(f"{relative}:{line}: import {name} inside the function that needs it")
    return out


def circles(sources: dict[str, str]) -> list[list[str]]:
    """Groups of modules that need one another, by lazy imports and those for types too."""
    needs: dict[str, set[str]] = {}
    for module, source in sources.items():
        # a name of a package is in its __init__, or is a module of its own
        found = {
            n if n in sources else n.rpartition(".")[0] for n, _ in imported(ast.parse(source))
        }
        needs[module] = {n for n in found if n in sources and n != module}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    out: list[list[str]] = []

    def visit(module: str) -> None:  # Tarjan's strongly connected components
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in needs[module]:
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                out.append(sorted(group))

    for module in sources:
        if module not in index:
            visit(module)
    return out


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


def test_parts_import_only_what_they_may():
    found = []
    for module, path in MODULES.items():
        if module != "artifactnet":
            found += breaches(SOURCES[path], module.removeprefix("artifactnet."))
    assert found == []


def test_third_party_packages_stay_in_their_one_place():
    found = []
    for path, source in SOURCES.items():
        found += third_party_breaches(source, path.relative_to(PACKAGE).as_posix())
    assert found == []


def test_modules_that_are_loaded_late_are_imported_inside_functions():
    late = {"artifactnet." + path.removesuffix(".py").replace("/", ".") for path in LOADED_LATE}
    found = []
    for path, source in SOURCES.items():
        relative = path.relative_to(PACKAGE).as_posix()
        if relative not in LOADED_LATE:
            names = outside_functions(ast.parse(source))
            found += [(relative, n) for n, _ in names if n.rpartition(".")[0] in late or n in late]
    assert found == []


def test_no_module_is_in_an_import_circle():
    modules = {m: SOURCES[p] for m, p in MODULES.items() if m != "artifactnet"}
    assert circles(modules) == []


def test_public_names_are_documented_and_typed():
    gaps = {str(path.relative_to(ROOT)): undocumented(source) for path, source in SOURCES.items()}
    assert {path: found for path, found in gaps.items() if found} == {}


def test_every_folder_is_a_package():
    assert [p for p in {path.parent for path in SOURCES} if not (p / "__init__.py").is_file()] == []


def test_tools_only_call_the_command_line():
    """All but the script that says how a packaged model was made."""
    for path in set((ROOT / "tools").glob("*.py")) - {ROOT / "tools" / "train_small.py"}:
        names = [n for n, _ in imported(ast.parse(path.read_text()))]
        assert set(names) - {"sys"} <= {"artifactnet.cli.main", "perf.cli.main"}, path


# The checks above are only worth what they catch.


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("models.x", "import artifactnet.data.sources.folder"),
        ("data.x", "from artifactnet.models.attention.rollout import patch_map"),
        ("losses.x", "from artifactnet.config import LossConfig"),
        ("inference.x", "from artifactnet.vlm.heie.predictor import HeiePredictor"),
        ("training.x", "from artifactnet.explanation import cam"),
        ("evaluation.x", "from artifactnet.training import trainer"),
        ("vlm.heie.model", "def f():\n    from artifactnet.training import trainer"),
        ("elsewhere", "import os"),
    ],
)
def test_a_forbidden_import_is_caught(module, line):
    assert len(breaches(line, module)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("training.x", "from artifactnet.explanation.overlay import grid"),
        ("inference.load", "from artifactnet.vlm.heie.predictor import HeiePredictor"),
        ("vlm.heie.trainer", "from artifactnet.training import trainer"),
        ("cli.x", "from artifactnet import load_model"),
        ("data.x", "import numpy as np"),
    ],
)
def test_an_allowed_import_passes(module, line):
    assert breaches(line, module) == []


@pytest.mark.parametrize(
    ("relative", "source", "caught"),
    [
        ("models/x.py", "import lightning as L", True),
        ("models/x.py", "from timm.models import create_model", True),
        ("data/x.py", "def f():\n    import albumentations as A", True),
        ("data/transforms.py", "import albumentations as A", True),
        ("config.py", "try:\n    import omegaconf\nexcept ImportError:\n    pass", True),
        ("data/transforms.py", "def f():\n    import albumentations as A", False),
        ("models/import_timm.py", "import timm", False),
        ("config.py", "if TYPE_CHECKING:\n    import omegaconf", False),
        ("training/x.py", "import lightning", False),
    ],
)
def test_a_misplaced_package_is_caught(relative, source, caught):
    assert bool(third_party_breaches(source, relative)) is caught


def test_a_circle_is_caught_however_it_is_imported():
    a = "def f():\n    from artifactnet.b import x"
    b = "if TYPE_CHECKING:\n    from artifactnet import c"
    c = "import artifactnet.a"
    modules = {"artifactnet.a": a, "artifactnet.b": b, "artifactnet.c": c, "artifactnet.d": a}
    assert circles(modules) == [["artifactnet.a", "artifactnet.b", "artifactnet.c"]]
    assert circles({**modules, "artifactnet.c": ""}) == []


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
    assert undocumented("def _f(x):\n    return x\nclass _A:\n    def g(self): pass") == []
