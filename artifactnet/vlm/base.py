"""Low-rank adapters and new token rows on a base model: what is learnt, saved and merged."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artifactnet.config import MllmConfig
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.text.chain_of_thought import MAP, SCORE

_PACKAGES = ("transformers", "peft", "accelerate")


def need_extra() -> None:
    """Say at once what is missing.

    Raises:
        ArtifactNetError: the extra is not installed; the message holds the command.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ArtifactNetError(
            f"the multimodal HEIE needs {', '.join(missing)}: pip install 'artifactnet[mllm]'"
        )


FAMILIES = ("internvl",)  # `model_type` of configurations that HEIE can be built on


def load_processor(config: MllmConfig) -> Any:
    """Image processor and tokenizer of the base, its tokenizer knowing ``[MAP]`` and ``[SCORE]``.

    Raises:
        ArtifactNetError: nothing to be found there, or a base of another family.
    """
    need_extra()
    from transformers import AutoProcessor

    _check_family(config)
    processor = _from_pretrained(AutoProcessor, config)
    processor.tokenizer.add_special_tokens(
        {"extra_special_tokens": [MAP, SCORE]}, replace_extra_special_tokens=False
    )
    return processor


def load_base(
    config: MllmConfig, tokens: int, device: str | torch.device, tuned: bool = False
) -> Any:
    """The base model on ``device``, with a row in its embeddings for every token.

    Weights are bfloat16 on a GPU and float32 on a CPU; quantised ones as the config says.

    Args:
        config: which base.
        tokens: size of its tokenizer.
        device: where it shall run.
        tuned: all its weights are to be learnt, so they are float32 anywhere: in bfloat16 small
            steps of an optimizer would be rounded away.

    Raises:
        ArtifactNetError: nothing to be found there, a base of another family, one that lacks
            weights, or quantisation that this platform does not have.
    """
    need_extra()
    from transformers import InternVLForConditionalGeneration

    _check_family(config)
    device = torch.device(device)
    dtype = torch.bfloat16 if device.type == "cuda" and not tuned else torch.float32
    options: dict[str, Any] = {"dtype": dtype}
    if config.quantize != "none":
        options |= {"quantization_config": _quantization(config, device), "device_map": device}
    base, found = _from_pretrained(
        InternVLForConditionalGeneration, config, output_loading_info=True, **options
    )
    lacking = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
    if lacking:  # transformers would go on with random ones
        raise ArtifactNetError(
            f"mllm.base={config.base}: lacks {len(lacking)} weights, e.g. {lacking[0]}: is the "
            "checkpoint complete?"
        )
    if tokens > base.get_input_embeddings().weight.shape[0]:
        base.resize_token_embeddings(tokens, mean_resizing=False)
    return base if config.quantize != "none" else base.to(device)


def _check_family(config: MllmConfig) -> None:
    from transformers import AutoConfig

    found = _from_pretrained(AutoConfig, config)
    if found.model_type not in FAMILIES:
        raise ArtifactNetError(
            f"mllm.base={config.base}: a model of the family {found.model_type!r}; HEIE is built "
            f"on {', '.join(FAMILIES)}: take an InternVL checkpoint for transformers, whose name "
            "ends in -hf"
        )


def _from_pretrained(kind: Any, config: MllmConfig, **options: Any) -> Any:
    """Read a part of the base; whatever is wrong with it becomes one line."""
    if config.base is None:
        raise ArtifactNetError("mllm.base is not set: name an InternVL checkpoint, or its folder")
    revision = None if Path(config.base).is_dir() else config.revision
    from safetensors import SafetensorError

    try:
        return kind.from_pretrained(
            config.base, revision=revision, trust_remote_code=False, **options
        )
    # what transformers raises for missing, unknown and broken parts
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactNetError(
            f"mllm.base={config.base}: cannot be loaded: {reason}; HEIE takes InternVL checkpoints "
            "for transformers, whose names end in -hf"
        ) from error


def _quantization(config: MllmConfig, device: torch.device) -> Any:
    if find_spec("bitsandbytes") is None or device.type != "cuda":
        raise ArtifactNetError(
            f"mllm.quantize={config.quantize} needs a CUDA device and bitsandbytes (pip install "
            "bitsandbytes); set mllm.quantize=none here"
        )
    from transformers import BitsAndBytesConfig

    if config.quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def add_adapters(base: Any, config: MllmConfig, new_tokens: list[int]) -> Any:
    """The base with LoRA on every linear layer of language model, vision tower and projector.

    Everything else is frozen but the new tokens' rows of the embedding, and of the output layer
    where that has rows of its own.

    Args:
        base: an ``InternVLForConditionalGeneration``.
        config: rank, alpha and dropout; a rank above 0.
        new_tokens: ids of the tokens that HEIE added.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    tied = base.get_input_embeddings().weight is base.get_output_embeddings().weight
    rows = {"embed_tokens": new_tokens}
    if not tied:  # peft follows a tied output layer by itself
        rows["lm_head"] = new_tokens
    if config.quantize != "none":
        base = prepare_model_for_kbit_training(
            base, use_gradient_checkpointing=config.gradient_checkpointing
        )
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
        trainable_token_indices=rows,
    )
    return get_peft_model(base, lora)


def adapter_state(base: Any) -> dict[str, Tensor]:
    """Adapters and new token rows, by peft's names."""
    from peft import get_peft_model_state_dict

    state: dict[str, Tensor] = get_peft_model_state_dict(base, save_embedding_layers=False)
    return state


def load_adapter_state(base: Any, state: dict[str, Tensor]) -> list[str]:
    """Put what `adapter_state` gave back; returns names that the base does not have."""
    from peft import set_peft_model_state_dict

    expected = set(adapter_state(base))
    if expected != set(state):
        return sorted(expected ^ set(state))
    set_peft_model_state_dict(base, state)
    return []


def merged(base: Any) -> Any:
    """The base model with its adapters added to its weights; ``base`` is used up."""
    return base.merge_and_unload()
