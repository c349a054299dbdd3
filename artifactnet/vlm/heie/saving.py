"""A trained HEIE on disk: trained weights as safetensors, its base by name and revision.

heie.json            format, base, revision, configuration, facts of the training
heie.safetensors     adapters, new token rows, mapper and scorer
base/                the whole base model, if all of it was fine-tuned
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from artifactnet.config import HeatmapConfig, MllmConfig
from artifactnet.files import write_json
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.base import adapter_state, load_adapter_state, merge_adapters
from artifactnet.vlm.heie.model import HEIE, assemble_heie
from artifactnet.vlm.saving import load_tensors, save_base, save_tensors

FACTS = "heie.json"
WEIGHTS = "heie.safetensors"
BASE = "base"
FORMAT = 1
_HEAD, _ADAPTER = "head.", "adapter."


def is_heie(path: str | Path) -> bool:
    """Whether a folder holds a saved HEIE; loads nothing."""
    return (Path(path) / FACTS).is_file()


def save_heie(model: HEIE, folder: str | Path, extra: dict[str, Any]) -> None:
    """Write a HEIE and JSON-ready facts of its training (``extra``) into a folder.

    Each file is replaced atomically, ``heie.json`` last.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {_HEAD + k: v for k, v in model.head.state_dict().items()}
    if model.mllm.lora_rank:
        state |= {_ADAPTER + k: v for k, v in adapter_state(model.base).items()}
    else:
        save_base(model.causal, model.processing.processor, folder / BASE)
    save_tensors(folder / WEIGHTS, state)
    facts = {"format": FORMAT, "mllm": asdict(model.mllm), "heatmap": asdict(model.config)}
    write_json(folder / FACTS, {**facts, "extra": extra})


def load_heie(folder: str | Path, device: str | torch.device = "cpu", merge: bool = False) -> HEIE:
    """Load a HEIE for inference.

    Args:
        folder: written by `save_heie`, e.g. that of a training run.
        device: where to run it.
        merge: add the adapters to the weights of a base that is not quantised: faster, but such a
            model cannot be saved again.

    Raises:
        ArtifactNetError: there is no HEIE, it has another format, its base cannot be loaded, or
            the weights do not fit; the message names the file.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    try:
        mllm, heatmap = MllmConfig(**facts["mllm"]), HeatmapConfig(**facts["heatmap"])
    except (TypeError, KeyError) as error:
        raise ArtifactNetError(
            f"{folder / FACTS}: made by another version of artifactnet ({error})"
        ) from error
    path = folder / WEIGHTS
    state = load_tensors(path)
    source, hint = mllm, f"; if it was moved, correct mllm.base in {folder / FACTS}"
    if not mllm.lora_rank:
        source, hint = replace(mllm, base=str(folder / BASE), quantize="none"), ""
    try:
        model = assemble_heie(source, heatmap, device)
    except ArtifactNetError as error:
        raise ArtifactNetError(f"{error}{hint}") from error
    model.mllm = mllm
    model.notices = tuple(facts["extra"].get("notices", ()))
    try:
        model.head.load_state_dict(
            {k.removeprefix(_HEAD): v for k, v in state.items() if k.startswith(_HEAD)}
        )
    except RuntimeError as error:
        raise ArtifactNetError(f"{path}: does not fit its mapper: {error}") from error
    if mllm.lora_rank:
        adapters = {k.removeprefix(_ADAPTER): v for k, v in state.items() if k.startswith(_ADAPTER)}
        unmatched = load_adapter_state(model.base, adapters)
        if unmatched:
            raise ArtifactNetError(
                f"{path}: does not fit the adapters of its base model: {len(unmatched)} tensors "
                f"differ, e.g. {unmatched[0]}; was the base replaced by another?"
            )
        if merge and mllm.quantize == "none":
            model.base = merge_adapters(model.base)
    return model.eval()


def read_facts(folder: str | Path) -> dict[str, Any]:
    """Content of ``heie.json``.

    Raises:
        ArtifactNetError: it cannot be read, or has another format.
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
