"""A trained HEIE on disk: what it learnt as safetensors, its base by name and revision.

heie.json            what it is: format, base, revision, configuration, facts of the training
heie.safetensors     adapters, new token rows, mapper and scorer
base/                the whole base model, where all of it was tuned
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artifactnet import files
from artifactnet.config import HeatmapConfig, MllmConfig
from artifactnet.types import ArtifactNetError
from artifactnet.vlm import base
from artifactnet.vlm.heie.model import HEIE, assemble

FACTS = "heie.json"
WEIGHTS = "heie.safetensors"
BASE = "base"
FORMAT = 1
_HEAD, _ADAPTER = "head.", "adapter."


def is_heie(path: str | Path) -> bool:
    """Whether a folder holds a saved HEIE; loads nothing."""
    return (Path(path) / FACTS).is_file()


def save(model: HEIE, folder: str | Path, extra: dict[str, Any]) -> None:
    """Write a HEIE; each file is replaced atomically, the facts last.

    Args:
        model: to save.
        folder: made if it is not there.
        extra: JSON-ready facts of its training.

    Raises:
        OSError: the folder cannot be written.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {_HEAD + k: v for k, v in model.head.state_dict().items()}
    if model.mllm.lora_rank:
        state |= {_ADAPTER + k: v for k, v in base.adapter_state(model.base).items()}
    else:
        _save_base(model, folder / BASE)
    whole = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    with files.atomic_path(folder / WEIGHTS) as temporary:
        save_file(whole, temporary)
    facts = {
        "format": FORMAT,
        "mllm": asdict(model.mllm),
        "heatmap": asdict(model.config),
        "extra": extra,
    }
    files.write_json(folder / FACTS, facts)


def load(folder: str | Path, device: str | torch.device = "cpu", merge: bool = False) -> HEIE:
    """Read a HEIE that `save` wrote, ready to answer.

    Args:
        folder: of the model, or of the run that made it.
        device: where it shall run.
        merge: add the adapters to the base's weights: faster, and only for answering, since such a
            model cannot be saved again. A quantised base keeps them apart.

    Raises:
        ArtifactNetError: no HEIE there, one of another format, its base cannot be loaded, or
            weights that do not fit; the message names the file.
    """
    folder = Path(folder)
    mllm, heatmap = _facts(folder / FACTS)
    state = _tensors(folder / WEIGHTS)
    whole = not mllm.lora_rank
    source = replace(mllm, base=str(folder / BASE), quantize="none") if whole else mllm
    try:
        model = assemble(source, heatmap, device)
    except ArtifactNetError as error:
        hint = f"; if it was moved, correct mllm.base in {folder / FACTS}"
        raise ArtifactNetError(f"{error}{'' if whole else hint}") from error
    model.mllm = mllm
    model.notices = tuple(read_facts(folder)["extra"].get("notices", ()))
    _fill(model, state, folder / WEIGHTS)
    if merge and mllm.lora_rank and mllm.quantize == "none":
        model.base = base.merged(model.base)
    return model.eval()


def read_facts(folder: str | Path) -> dict[str, Any]:
    """Content of ``heie.json``.

    Raises:
        ArtifactNetError: it cannot be read, or is not of this format.
    """
    path = Path(folder) / FACTS
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ArtifactNetError(
                f"{path}: format {facts['format']}, but this version reads format {FORMAT}; "
                "update artifactnet"
            )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactNetError(f"{path}: not a saved HEIE ({error!r})") from error
    return facts


def _facts(path: Path) -> tuple[MllmConfig, HeatmapConfig]:
    facts = read_facts(path.parent)
    try:
        return MllmConfig(**facts["mllm"]), HeatmapConfig(**facts["heatmap"])
    except (TypeError, KeyError) as error:
        raise ArtifactNetError(
            f"{path}: made by another version of artifactnet ({error})"
        ) from error


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # the reader's own error type is private; all mean a broken file
        raise ArtifactNetError(f"{path}: cannot be read as safetensors: {error}") from error


def _save_base(model: HEIE, folder: Path) -> None:
    """The base model and its processor, complete before they take the place of older ones."""
    fresh, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model.causal.save_pretrained(fresh)
    model.processing.processor.save_pretrained(fresh)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _fill(model: HEIE, state: dict[str, Tensor], path: Path) -> None:
    head = {k.removeprefix(_HEAD): v for k, v in state.items() if k.startswith(_HEAD)}
    rest = {k.removeprefix(_ADAPTER): v for k, v in state.items() if k.startswith(_ADAPTER)}
    try:
        model.head.load_state_dict(head)
    except RuntimeError as error:
        raise ArtifactNetError(f"{path}: does not fit its mapper: {error}") from error
    if not model.mllm.lora_rank:
        return
    strange = base.load_adapter_state(model.base, rest)
    if strange:
        raise ArtifactNetError(
            f"{path}: does not fit the adapters of its base model: {len(strange)} tensors differ, "
            f"e.g. {strange[0]}; was the base replaced by another?"
        )
