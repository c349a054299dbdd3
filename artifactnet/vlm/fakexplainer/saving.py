"""A trained FakeXplainer on disk: adapters as safetensors, its base by name and revision.

fakexplainer.json    format, base, revision, configuration, prompt, facts of the training
adapters.safetensors LoRA adapters
base/                the whole base model, if all of it was fine-tuned
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from artifactnet.config import MllmConfig
from artifactnet.files import write_json
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.fakexplainer.processing import (
    FakexplainerProcessing,
    load_fakexplainer_processing,
)
from artifactnet.vlm.saving import read_facts_file
from artifactnet.vlm.tuned import (
    build_tuned,
    check_same_settings,
    load_tuned,
    mllm_of,
    save_tuned,
    saved_source,
)

FACTS = "fakexplainer.json"
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
    tokens = len(processing.processor.tokenizer)
    place = None if adapters is None else Path(adapters)
    model, mllm = build_tuned(mllm, tokens, device, place)
    return Fakexplainer(model, processing, mllm)


def save_fakexplainer(trained: Fakexplainer, folder: str | Path, extra: dict[str, Any]) -> None:
    """Write a FakeXplainer and JSON-ready facts of its training (``extra``) into a folder.

    Each file is replaced atomically, ``fakexplainer.json`` last.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    processing = trained.processing
    save_tuned(trained.model, trained.mllm, processing.processor, folder)
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
    mllm = mllm_of(facts["mllm"], folder / FACTS)
    hint = f"; if it was moved, correct mllm.base in {folder / FACTS}" if mllm.lora_rank else ""
    try:
        processing = load_fakexplainer_processing(saved_source(mllm, folder))
        tokens = len(processing.processor.tokenizer)
        model = load_tuned(mllm, folder, tokens, device, merge)
    except ArtifactNetError as error:
        raise ArtifactNetError(f"{error}{hint}") from error
    notices = [*facts["extra"].get("notices", ())]
    if processing.prompt_hash != facts["prompt"]:
        notices.append("it was trained with the prompt of another version of artifactnet")
    return Fakexplainer(model.eval(), processing, mllm, tuple(notices))


def read_facts(folder: str | Path) -> dict[str, Any]:
    """Content of ``fakexplainer.json``.

    Raises:
        ArtifactNetError: it cannot be read, or has another format.
    """
    return read_facts_file(Path(folder) / FACTS, FORMAT, "FakeXplainer")


def check_adapters(folder: Path, mllm: MllmConfig) -> None:
    """Refuse adapters of a run that are of another base or other settings; loads no weights.

    Raises:
        ArtifactNetError: there is no such finished run, or a key differs, which is named.
    """
    if not is_fakexplainer(folder):
        raise ArtifactNetError(
            f"mllm.adapters={folder}: no {FACTS} there, so no finished fakexplainer run"
        )
    earlier = mllm_of(read_facts(folder)["mllm"], folder / FACTS)
    names = ["lora_rank", "lora_alpha", "tune", "layout", "region_form", "drop"]
    check_same_settings(folder, earlier, mllm, names)
