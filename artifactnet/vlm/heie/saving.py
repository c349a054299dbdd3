"""A trained HEIE on disk: trained weights as safetensors, its base by name and revision.

heie.json            format, base, revision, configuration, facts of the training
heie.safetensors     adapters, new token rows, mapper and scorer
base/                the whole base model, if all of it was fine-tuned
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from artifactnet.config import HeatmapConfig
from artifactnet.files import write_json
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.base import adapter_state, merge_adapters
from artifactnet.vlm.heie.model import HEIE, assemble_heie
from artifactnet.vlm.saving import load_tensors, read_facts_file, save_base, save_tensors
from artifactnet.vlm.tuned import BASE, load_adapters, mllm_of, saved_source

FACTS = "heie.json"
WEIGHTS = "heie.safetensors"
FORMAT = 1
UNMAPPED = "heatmap and score are UNTRAINED: they mean nothing"  # notice, in facts of the training
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
        mllm = mllm_of(facts["mllm"], folder / FACTS)
        heatmap = HeatmapConfig(**facts["heatmap"])
    except (TypeError, KeyError) as error:
        raise ArtifactNetError(
            f"{folder / FACTS}: made by another version of artifactnet ({error})"
        ) from error
    path = folder / WEIGHTS
    state = load_tensors(path)
    hint = f"; if it was moved, correct mllm.base in {folder / FACTS}" if mllm.lora_rank else ""
    try:
        model = assemble_heie(saved_source(mllm, folder), heatmap, device)
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
        load_adapters(model.base, adapters, path)
        if merge and mllm.quantize == "none":
            model.base = merge_adapters(model.base)
    return model.eval()


def read_facts(folder: str | Path) -> dict[str, Any]:
    """Content of ``heie.json``.

    Raises:
        ArtifactNetError: it cannot be read, or has another format.
    """
    return read_facts_file(Path(folder) / FACTS, FORMAT, "HEIE")
