"""A model fine-tuned on questions about images, on disk: those of Q-Real and of X-AIGD.

qreal.json or xaigd.json   format, task, configuration, facts of the training
adapters.safetensors, or base/   see `artifactnet.vlm.tuned`
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from artifactnet.config import MllmConfig
from artifactnet.files import write_json
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.boxes import INTERNVL, QWEN
from artifactnet.vlm.image_chat import ImageChat, load_image_chat
from artifactnet.vlm.saving import read_facts_file
from artifactnet.vlm.tuned import (
    check_same_settings,
    load_tuned,
    mllm_of,
    save_tuned,
    saved_source,
)

MARKS = (*QWEN, *INTERNVL)  # special tokens that answers of any form may contain
_FORMAT = 1
_FACTS = {"qreal": "qreal.json", "xaigd": "xaigd.json"}  # by what stands before _ in mllm.task


def facts_name(task: str) -> str:
    """Name of the file that describes a model of an ``mllm.task``."""
    return _FACTS[task.partition("_")[0]]


def is_tuned_chat(path: str | Path) -> bool:
    """Whether a folder holds such a model; loads nothing."""
    return _facts_path(Path(path)) is not None


def save_tuned_chat(
    model: Any, chat: ImageChat, mllm: MllmConfig, folder: str | Path, extra: dict[str, Any]
) -> None:
    """Write a model and JSON-ready facts of its training (``extra``), the file of facts last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_tuned(model, mllm, chat.processor, folder)
    facts = {"format": _FORMAT, "task": mllm.task, "family": chat.family, "extra": extra}
    write_json(folder / facts_name(mllm.task), {**facts, "mllm": asdict(mllm)})


def read_tuned_chat(folder: str | Path) -> tuple[MllmConfig, dict[str, Any]]:
    """How a saved model was made, and what `save_tuned_chat` got as ``extra``.

    Raises:
        ArtifactNetError: there is none, its file of facts cannot be read, or has another format.
    """
    path = _facts_path(Path(folder))
    if path is None:
        raise ArtifactNetError(f"{folder}: neither {' nor '.join(_FACTS.values())} there")
    facts = read_facts_file(path, _FORMAT, "fine-tuned model")
    return mllm_of(facts["mllm"], path), facts["extra"]


def load_tuned_chat(
    folder: str | Path, device: str | torch.device = "cpu", merge: bool = True
) -> tuple[ImageChat, Any, MllmConfig]:
    """Tokens, model and configuration of a saved model, for inference.

    Arguments as of `artifactnet.vlm.tuned.load_tuned`.

    Raises:
        ArtifactNetError: there is none, or its parts cannot be loaded.
    """
    folder = Path(folder)
    mllm, _ = read_tuned_chat(folder)
    chat = load_image_chat(saved_source(mllm, folder), marks_of(mllm.task))
    model = load_tuned(mllm, folder, len(chat.processor.tokenizer), device, merge)
    return chat, model.eval(), mllm


def marks_of(task: str) -> tuple[str, ...]:
    """Special tokens that answers of an ``mllm.task`` may contain."""
    return MARKS if task.startswith("qreal") else ()


def check_adapters(folder: Path, mllm: MllmConfig) -> None:
    """Refuse adapters of a run that are of another task, base or settings; loads no weights.

    A model of Q-Real may have learned another of its tasks.

    Raises:
        ArtifactNetError: there is no such finished run, or a key differs, which is named.
    """
    name = facts_name(mllm.task)
    if not (folder / name).is_file():
        raise ArtifactNetError(
            f"mllm.adapters={folder}: no {name} there, so no finished run of mllm.task={mllm.task}"
        )
    check_same_settings(
        folder, read_tuned_chat(folder)[0], mllm, ["lora_rank", "lora_alpha", "tune"]
    )


def _facts_path(folder: Path) -> Path | None:
    paths = (folder / name for name in _FACTS.values())
    return next((path for path in paths if path.is_file()), None)
