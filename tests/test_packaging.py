"""What an installation contains, built for real into a temporary folder."""

import ast
import csv
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import artifactnet

ROOT = Path(__file__).parent.parent
SOURCES = ("artifactnet", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE")


def build(kind: str, target: Path) -> Path:
    """A wheel of a copy of the sources, made by the backend that pip calls."""
    pytest.importorskip("setuptools", minversion="77.0.3")
    copy = target / "sources"
    for name in SOURCES:
        if (ROOT / name).is_dir():
            skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, copy / name, ignore=skip)
        else:
            copy.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(target)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


def top_level_imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return {n.partition(".")[0] for n in plain} | {
        n.module.partition(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and n.module
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Folder into which the wheel is unpacked, as pip would do."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def metadata(site: Path):
    return Parser().parsestr(next(site.glob("*.dist-info/METADATA")).read_text())


def run(args: list[str], site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


def test_wheel_holds_every_source_file_and_recipe(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "artifactnet").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in names
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert f"artifactnet/configs/{path.relative_to(ROOT / 'configs').as_posix()}" in names
    assert "artifactnet/py.typed" in names
    for kind in ("*.html", "*.css", "*.js"):
        for path in (ROOT / "artifactnet").rglob(kind):
            assert path.relative_to(ROOT).as_posix() in names
    for path in (ROOT / "artifactnet" / "weights").glob("*.*"):
        assert f"artifactnet/weights/{path.name}" in names


def test_wheel_holds_the_photographs_and_their_licences(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {n for n in archive.namelist() if n.startswith("artifactnet/photographs/")}
        table = archive.read("artifactnet/photographs/LICENCES.csv").decode("utf-8")
    stems = {row["name"] for row in csv.DictReader(table.splitlines())}
    for kind, suffix in (("real", "jpg"), ("fake", "jpg"), ("masks", "png")):
        found = {name for name in inside if f"/{kind}/" in name and name.endswith(suffix)}
        assert len(found) == 145
        assert {Path(name).stem for name in found} <= stems
    assert "artifactnet/photographs/captions.csv" in inside
    assert len(inside) == 3 * 145 + 2


def test_wheel_holds_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    strange = [n for n in names if not n.startswith(("artifactnet/", "artifactnet-"))]
    assert strange == []
    assert [n for n in names if n.startswith("artifactnet/tests")] == []


def test_metadata(installed):
    found = metadata(installed)
    assert found["Name"] == "artifactnet"
    assert found["Version"] == artifactnet.__version__
    assert found["Requires-Python"] == ">=3.10"
    assert {"lora", "test", "all"} <= set(found.get_all("Provides-Extra"))


def test_stated_requirements(installed):
    needs = {n.replace(" ", "") for n in metadata(installed).get_all("Requires-Dist")}
    core = {n for n in needs if ";extra==" not in n}
    assert "torch>=2.6" in core
    assert "mmcv-lite<2.2,>=2.1" in core
    # mmsegmentation imports these without declaring them
    names = {re.split(r"[<>=;]", n)[0] for n in core}
    assert {"mmsegmentation", "mmengine", "ftfy", "regex"} <= names
    # an upper bound needs a known incompatibility
    assert {n for n in core if "<" in n} == {"mmcv-lite<2.2,>=2.1"}


def test_everything_imported_is_required(installed):
    """A package that happens to come along with another one is still ours to declare."""
    home = {"PIL": "pillow", "cv2": "opencv-python-headless", "yaml": "pyyaml"}
    home |= {"skimage": "scikit-image", "sklearn": "scikit-learn"}
    home |= {"mmseg": "mmsegmentation", "mmcv": "mmcv-lite", "pytorch_grad_cam": "grad-cam"}
    required = {
        re.split(r"[<>=;\[ (]", n)[0].lower().replace("_", "-")
        for n in metadata(installed).get_all("Requires-Dist")
    }
    used = {n for p in (ROOT / "artifactnet").rglob("*.py") for n in top_level_imports(p)}
    outside = {home.get(n, n).replace("_", "-") for n in used - set(sys.stdlib_module_names)}
    assert outside - {"artifactnet"} - required == set()


def test_recipes_by_name_after_a_real_installation(installed, tmp_path):
    """Away from the checkout a recipe is known by its name."""
    code = (
        "import sys; from artifactnet.cli import main;"
        "sys.exit(max(main(['config', name, 'data.root=x', 'data.real_root=x'])"
        "             for name in sys.argv[1:]))"
    )
    done = run(["-c", code, "dinov2_align", "paper/xaigd_dinov2_align"], installed, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n  backbone:") == 2


def test_recipes_are_found_after_an_editable_installation(tmp_path):
    editable = build("editable", tmp_path)
    site = tmp_path / "site"
    with zipfile.ZipFile(editable) as archive:
        archive.extractall(site)
    code = (
        f"import site; site.addsitedir({str(site)!r});"
        "from importlib.resources import files;"
        "recipes = files('artifactnet.configs');"
        "assert (recipes / 'paper' / 'xaigd_dinov2_align.yaml').is_file();"
        "print((recipes / 'dinov2_align.yaml').read_text())"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = run(["-c", code], site, elsewhere)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (ROOT / "configs" / "dinov2_align.yaml").read_text().strip()


def test_ci_script_says_what_is_missing(tmp_path):
    """Without any Python on the path: one line, and a failure."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "mktemp", "rm"):
        (tools / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        [str(tools / "bash"), str(ROOT / ".ci" / "run")],
        env={"PATH": str(tools), "TMPDIR": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Python 3.10" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["bin"]  # it cleaned up
