"""What made a run: versions, machine, source revision, seed, command."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from artifactnet.config import Config
from artifactnet.runs.requirements import package_version

_PACKAGES = (
    *("artifactnet", "torch", "torchvision", "timm", "lightning", "torchmetrics"),
    *("albumentations", "omegaconf", "numpy", "pillow", "safetensors"),
    *("peft", "transformers", "accelerate"),
)


def provenance(config: Config) -> dict[str, Any]:
    """JSON-ready record of the start of a run."""
    return {
        "started": utc_now(),
        "command": sys.argv,
        "seed": config.seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: package_version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch_threads": torch.get_num_threads(),
        "git": git_revision(Path(__file__).resolve().parent),
    }


def utc_now() -> str:
    """Date and time in ISO format, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def git_revision(folder: Path) -> dict[str, Any] | None:
    """Revision and state of the source checkout that ``folder`` is tracked in, else None.

    An installed package inside somebody else's repository must not report that repository's
    revision, so git is asked whether it tracks our own file.
    """
    if shutil.which("git") is None:
        return None
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    if git("ls-files", "--error-unmatch", "__init__.py").returncode:
        return None
    revision, status = git("rev-parse", "HEAD"), git("status", "--porcelain")
    if revision.returncode or status.returncode:
        return None
    return {"revision": revision.stdout.strip(), "dirty": bool(status.stdout.strip())}
