"""A trained FakeXplainer on disk: adapters as safetensors, its base by name and revision.

fakexplainer.json    format, base, revision, configuration, prompt, facts of the training
adapters.safetensors LoRA adapters
base/                the whole base model, if all of it was fine-tuned
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from artifactnet.config import GrpoConfig, MllmConfig
from artifactnet.files import write_json
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.base import (
    adapter_state,
    load_adapter_state,
    load_base,
    merge_adapters,
    pin_base,
    to_peft_model,
)
from artifactnet.vlm.fakexplainer.processing import (
    FakexplainerProcessing,
    load_fakexplainer_processing,
)
from artifactnet.vlm.saving import load_tensors, save_base, save_tensors

FACTS = "fakexplainer.json"
WEIGHTS = "adapters.safetensors"
BASE = "base"
FORMAT = 1


@dataclass(slots=True)
class Fakexplainer:
    """A model that answers in FakeXplainer's grammar.

    Attributes:
        model: the base, with or without adapters, for transformers' ``generate``.
        processing: its prompt, answers and coordinates.
        mllm: how it was made; ``base`` and ``revision`` are pinned.
        notices: what users must know before they trust it.
    """

    model: Any
    processing: FakexplainerProcessing
    mllm: MllmConfig
    notices: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device


def is_fakexplainer(path: str | Path) -> bool:
    """Whether a folder holds a saved FakeXplainer; loads nothing."""
    return (Path(path) / FACTS).is_file()


def build_fakexplainer(
    mllm: MllmConfig, device: str | torch.device, adapters: str | Path | None = None
) -> Fakexplainer:
    """The base with adapters that learn: fresh ones, or those of a run (``adapters``).

    ``mllm.lora_rank`` 0 has no adapters: all of the base learns.

    Raises:
        ArtifactNetError: the base cannot be loaded, or the adapters are of another base or rank.
    """
    processing = load_fakexplainer_processing(mllm)
    if adapters is not None:
        check_adapters(Path(adapters), mllm)
    source = mllm
    if adapters is not None and not mllm.lora_rank:
        source = replace(mllm, base=str(Path(adapters) / BASE))
    tokens = len(processing.processor.tokenizer)
    model = load_base(source, tokens, device, tuned=not mllm.lora_rank)
    mllm = pin_base(mllm, model)
    if mllm.lora_rank:
        model = to_peft_model(model, mllm)
        if adapters is not None:
            _load_adapters(model, Path(adapters) / WEIGHTS)
    return Fakexplainer(model, processing, mllm)


def save_fakexplainer(trained: Fakexplainer, folder: str | Path, extra: dict[str, Any]) -> None:
    """Write a FakeXplainer and JSON-ready facts of its training (``extra``) into a folder.

    Each file is replaced atomically, ``fakexplainer.json`` last.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if trained.mllm.lora_rank:
        # the default adapter alone: GRPO keeps a frozen copy beside it, named ref
        save_tensors(folder / WEIGHTS, adapter_state(trained.model))
    else:
        save_base(trained.model, trained.processing.processor, folder / BASE)
    processing = trained.processing
    facts = {"format": FORMAT, "family": processing.family, "prompt": processing.prompt_hash}
    write_json(folder / FACTS, {**facts, "mllm": asdict(trained.mllm), "extra": extra})


def load_fakexplainer(
    folder: str | Path, device: str | torch.device = "cpu", merge: bool = True
) -> Fakexplainer:
    """Load a saved FakeXplainer for inference.

    Args:
        folder: written by `save_fakexplainer`, e.g. that of a training run.
        device: where to run it.
        merge: add the adapters to the weights of a base that is not quantised: faster, but such a
            model cannot be saved again.

    Raises:
        ArtifactNetError: there is none, it has another format, its base cannot be loaded, or the
            adapters do not fit; the message names the file.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    mllm = _mllm_of(facts, folder)
    source, hint = mllm, f"; if it was moved, correct mllm.base in {folder / FACTS}"
    if not mllm.lora_rank:
        source, hint = replace(mllm, base=str(folder / BASE), quantize="none"), ""
    try:
        processing = load_fakexplainer_processing(source)
        model = load_base(source, len(processing.processor.tokenizer), device)
    except ArtifactNetError as error:
        raise ArtifactNetError(f"{error}{hint}") from error
    if mllm.lora_rank:
        model = to_peft_model(model, mllm)
        _load_adapters(model, folder / WEIGHTS)
        if merge and mllm.quantize == "none":
            model = merge_adapters(model)
    notices = [*facts["extra"].get("notices", ())]
    if processing.prompt_hash != facts["prompt"]:
        notices.append("it was trained with the prompt of another version of artifactnet")
    return Fakexplainer(model.eval(), processing, mllm, tuple(notices))


def read_facts(folder: str | Path) -> dict[str, Any]:
    """Content of ``fakexplainer.json``.

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
        raise ArtifactNetError(f"{path}: not a saved FakeXplainer ({error!r})") from error
    return facts


def _mllm_of(facts: dict[str, Any], folder: Path) -> MllmConfig:
    try:
        values = dict(facts["mllm"])
        return MllmConfig(**{**values, "grpo": GrpoConfig(**values["grpo"])})
    except (TypeError, KeyError) as error:
        raise ArtifactNetError(
            f"{folder / FACTS}: made by another version of artifactnet ({error})"
        ) from error


def check_adapters(folder: Path, mllm: MllmConfig) -> None:
    """Refuse adapters of a run that are of another base or other settings; loads no weights.

    Raises:
        ArtifactNetError: there is no such finished run, or a key differs, which is named.
    """
    if not is_fakexplainer(folder):
        raise ArtifactNetError(
            f"mllm.adapters={folder}: no {FACTS} there, so no finished fakexplainer run"
        )
    earlier = _mllm_of(read_facts(folder), folder)
    names = ["lora_rank", "lora_alpha", "layout", "region_form", "drop"]
    if not (Path(str(earlier.base)).is_absolute() and Path(str(mllm.base)).is_dir()):
        names.insert(0, "base")  # a folder may have been moved
    for name in names:
        was, now = getattr(earlier, name), getattr(mllm, name)
        if was != now:
            raise ArtifactNetError(
                f"mllm.adapters={folder}: was trained with mllm.{name}={was}, not {now}; set "
                f"mllm.{name}={was}"
            )


def _load_adapters(model: Any, path: Path) -> None:
    unmatched = load_adapter_state(model, load_tensors(path))
    if unmatched:
        raise ArtifactNetError(
            f"{path}: does not fit the adapters of its base model: {len(unmatched)} tensors "
            f"differ, e.g. {unmatched[0]}; was the base replaced by another?"
        )
