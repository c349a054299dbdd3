"""Which of several builds of OpenCV wins, and that ours needs no display."""

import base64
import hashlib
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError

import pytest

from artifactnet.runs import opencv
from artifactnet.runs.opencv import HEADLESS, find_opencv


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of packages; the last one that is installed there overwrites the others' library."""

    def lookup(name):
        found = next(iter(Distribution.discover(name=name, path=[str(tmp_path)])), None)
        if found is None:
            raise PackageNotFoundError(name)
        return found

    def install(name, version, content):
        facts = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
        digest = hashlib.sha256(content).digest()
        hashed = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        record = f"cv2/cv2.abi3.so,sha256={hashed},{len(content)}\ncv2/__init__.py,,\n"
        (facts / "RECORD").write_text(record)
        (tmp_path / "cv2").mkdir(exist_ok=True)
        (tmp_path / "cv2" / "cv2.abi3.so").write_bytes(content)

    monkeypatch.setattr(opencv, "distribution", lookup)
    return install


def test_one_headless_build(site):
    site("opencv-python-headless", "5.0.0.93", b"small")
    found = find_opencv()
    assert found.installed == {"opencv-python-headless": "5.0.0.93"}
    assert found.wins == "opencv-python-headless"
    assert found.error is found.problem is found.caveat is None


@pytest.mark.parametrize("last", ["opencv-python", "opencv-python-headless"])
def test_of_two_builds_the_last_one_wins(site, last):
    order = sorted(["opencv-python", "opencv-python-headless"], key=lambda name: name == last)
    for name in order:
        site(name, "5.0.0.93", name.encode())
    found = find_opencv()
    assert set(found.installed) == set(order)
    assert found.wins == last
    assert found.problem is None
    assert (found.caveat is None) == (last in HEADLESS)
    assert last in HEADLESS or "opencv-python needs libGL" in found.caveat


def test_files_of_two_versions_are_a_problem(site):
    site("opencv-python", "4.9.0.80", b"large")
    site("opencv-python-headless", "5.0.0.93", b"small")
    assert "two versions" in find_opencv().problem


def test_a_library_of_nobody_is_a_problem(site, tmp_path):
    site("opencv-python-headless", "5.0.0.93", b"small")
    (tmp_path / "cv2" / "cv2.abi3.so").write_bytes(b"copied from elsewhere")
    assert find_opencv().wins is None
    assert "none of the installed builds" in find_opencv().problem
    (tmp_path / "cv2" / "cv2.abi3.so").unlink()
    assert find_opencv().wins is None


def test_an_opencv_that_pip_does_not_know_is_none_of_ours(site):
    """Distributions of Linux and conda bring their own."""
    found = find_opencv()
    assert (found.installed, found.wins, found.problem, found.caveat) == ({}, None, None, None)


def test_a_failing_import_is_a_problem(tmp_path, monkeypatch):
    said = "libGL.so.1: cannot open shared object file"
    (tmp_path / "cv2.py").write_text(f"raise ImportError({said!r})\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert find_opencv().problem == f"import cv2 fails (ImportError: {said})"


def test_this_environment():
    found = find_opencv()
    assert found.error is None
    assert "opencv-python-headless" in found.installed
    assert found.wins in found.installed


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_no_library_of_a_display_is_loaded():
    """What a machine without libGL could not load; by everything that predicting imports."""
    if find_opencv().wins not in HEADLESS:
        pytest.skip(f"a build with a display is installed last here; {opencv.REMEDY}")
    code = (
        "import artifactnet, cv2; artifactnet.load_model; artifactnet.explain;"
        "print(open('/proc/self/maps').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "/cv2/cv2" in done.stdout
    for library in ("libGL.", "libGLX", "libX11.", "libQt"):  # Pillow brings a libxcb of its own
        assert library not in done.stdout
