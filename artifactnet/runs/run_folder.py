"""The folder of a run: who may write to it, and the record of its configuration.

config.yaml        every key, resolved           provenance.json    versions, seed, revision
data.json          counts of the data            last.ckpt          everything `resume` needs
model.safetensors  the best model so far         last.safetensors   the model of the last step
results.json/.md   figures on the test split     finished.json      the run is complete
logs/ tensorboard/ pictures/ evaluations/
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from artifactnet import files
from artifactnet.config import Config, load, to_dict
from artifactnet.runs.provenance import provenance, utc_now
from artifactnet.types import ArtifactNetError

CONFIG = "config.yaml"
PROVENANCE = "provenance.json"
DATA = "data.json"
CHECKPOINT = "last.ckpt"
BEST = "model.safetensors"
LAST = "last.safetensors"
FINISHED = "finished.json"
PICTURES = "pictures"

# keys that may change between a run and its continuation: none affects what was learned so far
MAY_CHANGE = (
    *("distill.cache", "name", "out", "resume", "overwrite", "mllm.groups"),
    *("mllm.sequence_bias", "mllm.temperature"),
    *("data.root", "data.real_root", "data.workers", "data.check", "data.eval_batch_size"),
    *("train.epochs", "train.max_steps", "train.device", "train.picture_every"),
    *("train.pictures", "train.log_every", "train.tensorboard"),
)


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where a run is, and its ``results.json``.

    ``results`` is empty in the other processes of a distributed run.
    """

    run_dir: Path
    results: dict[str, Any]


def check_run_folder(config: Config) -> Path:
    """The folder ``out/name`` of a run, if this config may write to it.

    Changes nothing, so call it before the expensive part of a start.

    Raises:
        ArtifactNetError: the folder holds a run and neither ``resume`` nor ``overwrite`` is set;
            ``resume`` without a run, or with another config.
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
        changed = changed_keys(read_config(folder), config)
        if changed:
            raise ArtifactNetError(
                f"resume=true, but the config differs from that of the run in {folder}: "
                f"{'; '.join(changed)}. Set them back, or start another run with name=..."
            )
    elif not config.overwrite:
        state, more = "an unfinished run", "resume=true continues it"
        if (folder / FINISHED).is_file():
            state, more = "a finished run", "resume=true with a higher train.epochs continues it"
        raise ArtifactNetError(
            f"{folder} holds {state}: overwrite=true replaces it, {more}, name=... starts another"
        )
    return folder


def prepare_run_folder(config: Config) -> Path:
    """Empty the folder of a run, or clean up after a killed process.

    It then holds the resolved config and one provenance entry per start.

    Raises:
        ArtifactNetError: see `check_run_folder`; or the folder cannot be written.
    """
    folder = check_run_folder(config)
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
        # the file describes the run, not how it was started this time
        values = to_dict(config) | {"resume": False, "overwrite": False}
        # the config goes first: `check_run_folder` recognizes a run by it
        files.write_text(folder / CONFIG, yaml.safe_dump(values, sort_keys=False))
        files.write_json(folder / PROVENANCE, [*starts, provenance(config)])
    except (OSError, json.JSONDecodeError) as error:
        raise ArtifactNetError(f"{folder}: the run folder cannot be prepared: {error}") from error
    return folder


def finish_run(folder: Path, facts: dict[str, Any]) -> None:
    """Write the marker of a complete run, with facts about it."""
    files.write_json(folder / FINISHED, {"finished": utc_now(), **facts})


def find_run(folder: str | Path) -> tuple[Path, Config]:
    """Folder and config of a run that has a model.

    Raises:
        ArtifactNetError: no run there, or it was stopped before its first validation.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise ArtifactNetError(f"{folder} is not the folder of a run (it has no {CONFIG})")
    if not (folder / BEST).is_file():
        config = read_config(folder)
        if config.mllm.base is not None:
            raise ArtifactNetError(
                f"{folder}: the run of a language model (mllm.task={config.mllm.task}), where a "
                "detector is needed, or not finished yet"
            )
        raise ArtifactNetError(f"{folder} has no {BEST} yet; finish the run with resume=true")
    return folder, read_config(folder)


def read_config(folder: Path) -> Config:
    """Config of the run in ``folder``, without overrides.

    Raises:
        ArtifactNetError: the run is older than the key that says which of the demo data it saw.
    """
    path = folder / CONFIG
    config = load(path)
    if config.data.name == "demo" and "demo_photos" not in path.read_text(encoding="utf-8"):
        raise ArtifactNetError(
            f"{path}: no data.demo_photos, so the run is older than that key, whose default "
            "adds photographs that the run never saw; write 'demo_photos: classic' below 'data:'"
        )
    return config


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turn the system's error about a full disk into one that tells how to resume."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise ArtifactNetError(
            f"{folder}: the disk is full. What was saved before is intact: free some space, then "
            "continue with resume=true"
        ) from error


def changed_keys(saved: Config, now: Config) -> list[str]:
    """Keys that differ although a resumed run must keep them, as ``key was A, is B``."""
    before, after = flatten_keys(to_dict(saved)), flatten_keys(to_dict(now))
    return [
        f"{key} was {before.get(key)!r}, is {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if key not in MAY_CHANGE and before.get(key) != after.get(key)
    ]


def check_same_teacher(config: Config, teacher: Mapping[str, Any]) -> None:
    """Raise `ArtifactNetError` if a resumed run's teacher has changed since the run started.

    ``teacher`` holds the facts that `attach_teacher_labels` put into the data's summary.
    """
    path = Path(config.out) / config.name / DATA
    if not config.resume or not path.is_file():
        return
    earlier = json.loads(path.read_text(encoding="utf-8")).get("teacher")
    if earlier is not None and earlier["identity"] != teacher["identity"]:
        raise ArtifactNetError(
            f"{path.parent}: started with another teacher than {config.distill.teacher} is now (it "
            "was trained or changed since); restore that one, or start another run with name=..."
        )


def flatten_keys(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionary with dotted keys instead."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= flatten_keys(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
