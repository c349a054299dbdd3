"""A model fine-tuned on Q-Real on disk.

qreal.json   format, configuration, facts of the training
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

FACTS = "qreal.json"
FORMAT = 1
MARKS = (*QWEN, *INTERNVL)  # special tokens that an answer may contain


def is_qreal(path: str | Path) -> bool:
    """Whether a folder holds a model fine-tuned on Q-Real; loads nothing."""
    return (Path(path) / FACTS).is_file()


def save_qreal(
    model: Any, chat: ImageChat, mllm: MllmConfig, folder: str | Path, extra: dict[str, Any]
) -> None:
    """Write a model and JSON-ready facts of its training (``extra``); ``qreal.json`` comes last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_tuned(model, mllm, chat.processor, folder)
    facts = {"format": FORMAT, "task": mllm.task, "family": chat.family, "extra": extra}
    write_json(folder / FACTS, {**facts, "mllm": asdict(mllm)})


def read_qreal_facts(folder: str | Path) -> tuple[MllmConfig, dict[str, Any]]:
    """How a saved model was made, and what `save_qreal` got as ``extra``.

    Raises:
        ArtifactNetError: ``qreal.json`` cannot be read, or has another format.
    """
    path = Path(folder) / FACTS
    facts = read_facts_file(path, FORMAT, "model of Q-Real")
    return mllm_of(facts["mllm"], path), facts["extra"]


def load_qreal(
    folder: str | Path, device: str | torch.device = "cpu", merge: bool = True
) -> tuple[ImageChat, Any, MllmConfig]:
    """Tokens, model and configuration of a saved model, for inference.

    Arguments as of `artifactnet.vlm.tuned.load_tuned`.

    Raises:
        ArtifactNetError: there is none, or its parts cannot be loaded.
    """
    folder = Path(folder)
    mllm, _ = read_qreal_facts(folder)
    chat = load_image_chat(saved_source(mllm, folder), MARKS)
    model = load_tuned(mllm, folder, len(chat.processor.tokenizer), device, merge)
    return chat, model.eval(), mllm


def check_qreal_adapters(folder: Path, mllm: MllmConfig) -> None:
    """Refuse adapters of a run that are of another base or other settings; loads no weights.

    Raises:
        ArtifactNetError: there is no such finished run, or a key differs, which is named.
    """
    if not is_qreal(folder):
        raise ArtifactNetError(
            f"mllm.adapters={folder}: no {FACTS} there, so no finished run on Q-Real"
        )
    check_same_settings(folder, read_qreal_facts(folder)[0], mllm, ["lora_rank", "lora_alpha"])
