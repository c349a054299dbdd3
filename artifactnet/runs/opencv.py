"""Which build of OpenCV is imported, where several are installed into one environment.

Four packages on PyPI install the same module ``cv2``, and pip does not know that they exclude each
other. The one that was installed last overwrites the others' files; two of them need libraries of a
display (libGL) to be imported. Some of our dependencies ask for one build, some for another.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution
from pathlib import Path, PurePath

from artifactnet.files import sha256_file

HEADLESS = ("opencv-python-headless", "opencv-contrib-python-headless")  # need no display
BUILDS = (*HEADLESS, "opencv-python", "opencv-contrib-python")
# also mends an environment of two builds; pip goes on believing that both are there
REMEDY = "pip install --force-reinstall --no-deps opencv-python-headless"


@dataclass(frozen=True, slots=True)
class OpenCV:
    """The builds of an environment.

    Attributes:
        installed: package -> version, of the builds that pip knows.
        wins: the package whose library is the one on disk; None if it is of none of them.
        error: why ``import cv2`` fails; None if it works.
    """

    installed: dict[str, str]
    wins: str | None
    error: str | None

    @property
    def problem(self) -> str | None:
        """What does not work, or may not; None if all is well."""
        if self.error is not None:
            return f"import cv2 fails ({self.error})"
        if self.installed and self.wins is None:
            return "the library of cv2 belongs to none of the installed builds"
        if len(set(self.installed.values())) > 1:
            return "files of two versions are mixed in one folder"
        return None

    @property
    def caveat(self) -> str | None:
        """What works here and would not on a machine without libraries of a display."""
        if self.wins is None or self.wins in HEADLESS:
            return None
        return f"{self.wins} needs libGL, which machines without a display may lack"


def find_opencv() -> OpenCV:
    """The builds of this environment; OpenCV is imported in a process of its own."""
    found: dict[str, Distribution] = {}
    for name in BUILDS:
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
    wins = next((name for name, package in found.items() if _is_on_disk(package)), None)
    installed = {name: package.version for name, package in found.items()}
    return OpenCV(installed, wins, _import_error())


def _is_on_disk(package: Distribution) -> bool:
    """Whether the compiled library is the very one that the package brought."""
    libraries = [file for file in package.files or () if _is_library(file)]
    return bool(libraries) and all(_is_unchanged(file) for file in libraries)


def _is_library(file: PurePath) -> bool:
    return file.parts[:1] == ("cv2",) and len(file.parts) == 2 and file.suffix in (".so", ".pyd")


def _is_unchanged(file: PackagePath) -> bool:
    path = Path(str(file.locate()))
    if file.hash is None or not path.is_file():
        return False
    digest = bytes.fromhex(sha256_file(path))  # RECORD has SHA-256, in base64 without padding
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii") == file.hash.value


def _import_error() -> str | None:
    done = subprocess.run(
        [sys.executable, "-c", "import cv2"], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"
