"""The folder of a run: who may write into it, and the record of what made it.

config.yaml        every key, resolved           provenance.json    versions, seed, revision
data.json          counts of the data            last.ckpt          everything `resume` needs
model.safetensors  the best model so far         last.safetensors   the model of the last step
results.json/.md   figures on the test split     finished.json      the run came to its end
logs/ tensorboard/ pictures/ evaluations/
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

from artifactnet import files
from artifactnet.config import Config, load, to_dict
from artifactnet.types import ArtifactNetError

CONFIG = "config.yaml"
PROVENANCE = "provenance.json"
DATA = "data.json"
CHECKPOINT = "last.ckpt"
BEST = "model.safetensors"
LAST = "last.safetensors"
FINISHED = "finished.json"
PICTURES = "pictures"

# keys that may change between a run and its continuation: none alters what was learnt so far
MAY_CHANGE = (
    "distill.cache",
    "name",
    "out",
    "resume",
    "overwrite",
    "data.root",
    "data.real_root",
    "data.workers",
    "data.check",
    "data.eval_batch_size",
    "train.epochs",
    "train.max_steps",
    "train.device",
    "train.picture_every",
    "train.pictures",
    "train.log_every",
    "train.tensorboard",
)
_PACKAGES = (
    "artifactnet",
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "torchmetrics",
    "albumentations",
    "omegaconf",
    "numpy",
    "pillow",
    "safetensors",
    "peft",
    "transformers",
    "accelerate",
)


def check(config: Config) -> Path:
    """The folder ``out/name`` of a run, if this config may write into it.

    Changes nothing, so that it can be asked before the expensive part of a start.

    Raises:
        ArtifactNetError: the folder holds a run and neither ``resume`` nor ``overwrite`` was
            asked for; ``resume`` of nothing, or with another config.
    """
    folder = Path(config.out) / config.name
    if not (folder / CONFIG).is_file():
        if config.resume:
            raise ArtifactNetError(f"resume=true, but there is no run in {folder}")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            # overwrite=true must never delete a folder that no run made
            raise ArtifactNetError(
                f"{folder} exists and is not a run; choose another name=... or out=..."
            )
    elif config.resume:
        changed = differences(load(folder / CONFIG), config)
        if changed:
            raise ArtifactNetError(
                f"resume=true, but the config differs from that of the run in {folder}: "
                f"{'; '.join(changed)}. Set them back, or start another run with name=..."
            )
    elif not config.overwrite:
        finished = (folder / FINISHED).is_file()
        state, more = "an unfinished run", "resume=true goes on with it"
        if finished:
            state, more = "a finished run", "resume=true with a higher train.epochs trains on"
        raise ArtifactNetError(
            f"{folder} holds {state}: overwrite=true replaces it, {more}, name=... starts another"
        )
    return folder


def prepare(config: Config) -> Path:
    """Make the folder of a run ready: emptied, or cleaned of what a killed process left.

    Returns:
        The folder. It holds the resolved config and one provenance entry per start.

    Raises:
        ArtifactNetError: see `check`; or the folder cannot be written.
    """
    folder = check(config)
    try:
        starts: list[Any] = []
        if config.overwrite and folder.exists():
            shutil.rmtree(folder)
        elif config.resume:
            if (folder / PROVENANCE).is_file():  # else the disk was full at the first start
                starts = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
            for leftover in (folder / FINISHED, *folder.glob(".*.tmp")):
                leftover.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        # the file describes the run, not the way it was started this time
        values = to_dict(config) | {"resume": False, "overwrite": False}
        text = yaml.safe_dump(values, sort_keys=False)
        files.write_text(folder / CONFIG, text)  # first: it makes the folder a run, see `check`
        files.write_json(folder / PROVENANCE, [*starts, provenance(config)])
    except (OSError, json.JSONDecodeError) as error:
        raise ArtifactNetError(f"{folder}: the run folder cannot be prepared: {error}") from error
    return folder


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turn the system's error about a full disk into one that says how to go on.

    Args:
        folder: of the run.

    Raises:
        ArtifactNetError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise ArtifactNetError(
            f"{folder}: the disk is full. What was saved before is intact: make room, then go on "
            "with resume=true"
        ) from error


def differences(saved: Config, now: Config) -> list[str]:
    """Keys that differ although a resumed run must keep them, as ``key was A, is B``."""
    before, after = flat(to_dict(saved)), flat(to_dict(now))
    return [
        f"{key} was {before.get(key)!r}, is {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if key not in MAY_CHANGE and before.get(key) != after.get(key)
    ]


def same_teacher(config: Config, teacher: Mapping[str, Any]) -> None:
    """Refuse to go on with a run whose teacher is not the one it began with.

    Args:
        config: the run.
        teacher: what `artifactnet.distillation.distill.teach` noted in the data's summary.

    Raises:
        ArtifactNetError: its weights or heatmaps have changed since.
    """
    path = Path(config.out) / config.name / DATA
    if not config.resume or not path.is_file():
        return
    earlier = json.loads(path.read_text(encoding="utf-8")).get("teacher")
    if earlier is not None and earlier["identity"] != teacher["identity"]:
        raise ArtifactNetError(
            f"{path.parent}: began with another teacher than {config.distill.teacher} is now (it "
            "was trained or changed since); restore that one, or start another run with name=..."
        )


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionary with dotted keys instead."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def open_run(folder: str | Path) -> tuple[Path, Config]:
    """Folder and config of a run that has a model.

    Raises:
        ArtifactNetError: no run there, or it was stopped before its first validation.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise ArtifactNetError(f"{folder} is not the folder of a run (it has no {CONFIG})")
    if not (folder / BEST).is_file():
        raise ArtifactNetError(f"{folder} has no {BEST} yet; finish the run with resume=true")
    return folder, load(folder / CONFIG)


def finish(folder: Path, facts: dict[str, Any]) -> None:
    """Write the marker that makes the run a finished one."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    files.write_json(folder / FINISHED, {"finished": now, **facts})


def provenance(config: Config) -> dict[str, Any]:
    """What is needed to tell later what made a run: versions, machine, revision, command."""
    return {
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "seed": config.seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch_threads": torch.get_num_threads(),
        "git": git_revision(Path(__file__).resolve().parent),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_revision(folder: Path) -> dict[str, Any] | None:
    """Revision and state of the source checkout that ``folder`` is tracked in, else None.

    An installed package inside somebody else's repository must not report that repository's
    revision, hence the question whether git tracks our own file.
    """
    if shutil.which("git") is None:
        return None

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )

    if git("ls-files", "--error-unmatch", "__init__.py").returncode:
        return None
    revision, status = git("rev-parse", "HEAD"), git("status", "--porcelain")
    if revision.returncode or status.returncode:
        return None
    return {"revision": revision.stdout.strip(), "dirty": bool(status.stdout.strip())}
