"""A fine-tuned base model: adapters that learn, and what is kept of them in the folder of a run.

adapters.safetensors LoRA adapters
base/                the whole base model, if all of it was fine-tuned
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artifactnet.config import GrpoConfig, MllmConfig
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.base import (
    adapter_state,
    choose_weights,
    load_adapter_state,
    load_base,
    merge_adapters,
    pin_base,
)
from artifactnet.vlm.saving import load_tensors, save_base, save_tensors

WEIGHTS = "adapters.safetensors"
BASE = "base"


def build_tuned(
    mllm: MllmConfig, tokens: int, device: str | torch.device, adapters: Path | None = None
) -> tuple[Any, MllmConfig]:
    """The base with adapters that learn, and its pinned config.

    Args:
        mllm: ``lora_rank`` 0 has no adapters: all of the base learns.
        tokens: size of the tokenizer.
        device: where it learns.
        adapters: folder of a run whose adapters are trained further; None: fresh ones.

    Raises:
        ArtifactNetError: the base cannot be loaded, or the adapters do not fit.
    """
    source = mllm
    if adapters is not None and not mllm.lora_rank:
        source = replace(mllm, base=str(adapters / BASE))
    model = load_base(source, tokens, device, tuned=not mllm.lora_rank)
    mllm = pin_base(mllm, model)
    model = choose_weights(model, mllm)
    if mllm.lora_rank and adapters is not None:
        load_adapters(model, load_tensors(adapters / WEIGHTS), adapters / WEIGHTS)
    return model, mllm


def save_tuned(model: Any, mllm: MllmConfig, processor: Any, folder: Path) -> None:
    """Write the adapters, or all of the base; each file is replaced atomically."""
    if mllm.lora_rank:
        # the default adapter alone: GRPO keeps a frozen copy beside it, named ref
        save_tensors(folder / WEIGHTS, adapter_state(model))
    else:
        save_base(model, processor, folder / BASE)


def saved_source(mllm: MllmConfig, folder: Path) -> MllmConfig:
    """Where the base of a saved model is: in the folder, if all of it was fine-tuned."""
    if mllm.lora_rank:
        return mllm
    return replace(mllm, base=str(folder / BASE), quantize="none")


def load_tuned(
    mllm: MllmConfig, folder: Path, tokens: int, device: str | torch.device, merge: bool = True
) -> Any:
    """What `save_tuned` wrote.

    Args:
        mllm: as it was saved.
        folder: of the run.
        tokens: size of the tokenizer.
        device: where to run it.
        merge: add the adapters to the weights of a base that is not quantised: faster, but such a
            model cannot be saved again.

    Raises:
        ArtifactNetError: the base cannot be loaded, or the adapters do not fit.
    """
    model = load_base(saved_source(mllm, folder), tokens, device)
    model = choose_weights(model, mllm)
    if mllm.lora_rank:
        load_adapters(model, load_tensors(folder / WEIGHTS), folder / WEIGHTS)
        if merge and mllm.quantize == "none":
            model = merge_adapters(model)
    return model


def mllm_of(values: dict[str, Any], where: Path) -> MllmConfig:
    """A config that was saved as JSON; ``where`` is its file.

    Raises:
        ArtifactNetError: another version of the package made it.
    """
    try:
        grpo = GrpoConfig(**values.get("grpo", {}))  # a HEIE may be older than these keys
        return MllmConfig(**{**values, "grpo": grpo})
    except TypeError as error:
        raise ArtifactNetError(
            f"{where}: made by another version of artifactnet ({error})"
        ) from error


def check_same_settings(
    folder: Path, earlier: MllmConfig, mllm: MllmConfig, names: list[str]
) -> None:
    """Refuse adapters of a run that are of another base or other settings; loads no weights.

    Args:
        folder: of the run.
        earlier: its config.
        mllm: that of the new run.
        names: keys that must be equal, beside the base.

    Raises:
        ArtifactNetError: a key differs, which is named.
    """
    if not (Path(str(earlier.base)).is_absolute() and Path(str(mllm.base)).is_dir()):
        names = ["base", *names]  # a folder may have been moved
    for name in names:
        was, now = getattr(earlier, name), getattr(mllm, name)
        if was != now:
            raise ArtifactNetError(
                f"mllm.adapters={folder}: was trained with mllm.{name}={was}, not {now}; set "
                f"mllm.{name}={was}"
            )


def load_adapters(model: Any, state: dict[str, Tensor], where: Path) -> None:
    """Give a model saved adapters; ``where`` is their file.

    Raises:
        ArtifactNetError: they are not those of this model.
    """
    unmatched = load_adapter_state(model, state)
    if unmatched:
        raise ArtifactNetError(
            f"{where}: does not fit the adapters of its base model: {len(unmatched)} tensors "
            f"differ, e.g. {unmatched[0]}; was the base replaced by another?"
        )
