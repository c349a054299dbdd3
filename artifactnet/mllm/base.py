"""Loading a base model and its processor, with the tokens that HEIE adds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from artifactnet.config import MllmConfig
from artifactnet.mllm.chain_of_thought import MAP, SCORE
from artifactnet.mllm.extra import need_extra
from artifactnet.types import ArtifactNetError

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
