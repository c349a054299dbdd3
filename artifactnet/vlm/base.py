"""The base model of a vision-language model: loading it, and LoRA adapters on it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artifactnet.config import MllmConfig
from artifactnet.types import ArtifactNetError

_PACKAGES = ("transformers", "peft", "accelerate")
_PROJECTOR = "multi_modal_projector"  # of InternVL and LLaVA
WHOLE = "modules_to_save"  # in names of weights of a projector that learns beside adapters (peft)


def require_mllm_extra() -> None:
    """Fail early, with the command that installs what is missing.

    Raises:
        ArtifactNetError: the extra ``mllm`` is not installed.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ArtifactNetError(
            f"vision-language models need {', '.join(missing)}: pip install 'artifactnet[mllm]'"
        )


def check_family(config: MllmConfig, families: Sequence[str], hint: str) -> str:
    """The ``model_type`` of the base, which is one of ``families``; loads no weights.

    Raises:
        ArtifactNetError: the base cannot be read, or is of another family; ends with ``hint``.
    """
    require_mllm_extra()
    from transformers import AutoConfig

    family: str = _from_pretrained(AutoConfig, config, hint).model_type
    if family not in families:
        raise ArtifactNetError(
            f"mllm.base={config.base}: model family {family!r} is not supported "
            f"({', '.join(families)}): {hint}"
        )
    return family


def load_processor(config: MllmConfig, new_tokens: Sequence[str] = ()) -> Any:
    """Image processor and tokenizer of the base, with ``new_tokens`` as special tokens.

    Raises:
        ArtifactNetError: the base cannot be loaded.
    """
    require_mllm_extra()
    from transformers import AutoProcessor

    processor = _from_pretrained(AutoProcessor, config)
    if new_tokens:
        processor.tokenizer.add_special_tokens(
            {"extra_special_tokens": list(new_tokens)}, replace_extra_special_tokens=False
        )
    return processor


def load_base(
    config: MllmConfig, tokens: int, device: str | torch.device, tuned: bool = False
) -> Any:
    """The base model on ``device``, with an embedding row for every token.

    Weights are bfloat16 on a GPU and float32 on a CPU; quantised ones as the config says. If all
    of them will be trained (``tuned``), they are float32 on every device: in bfloat16, small
    optimizer steps would be rounded away. ``tokens`` is the size of the tokenizer.

    Raises:
        ArtifactNetError: the base cannot be loaded or lacks weights, or the quantisation is not
            available on this platform.
    """
    require_mllm_extra()
    from transformers import AutoModelForImageTextToText

    device = torch.device(device)
    dtype = torch.bfloat16 if device.type == "cuda" and not tuned else torch.float32
    options: dict[str, Any] = {"dtype": dtype}
    if config.quantize != "none":
        options |= {"quantization_config": _quantization(config, device), "device_map": device}
    base, info = _from_pretrained(
        AutoModelForImageTextToText, config, output_loading_info=True, **options
    )
    missing = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if missing:  # transformers would go on with random ones
        raise ArtifactNetError(
            f"mllm.base={config.base}: {len(missing)} weights are missing, e.g. {missing[0]}: is "
            "the checkpoint complete?"
        )
    if tokens > base.get_input_embeddings().weight.shape[0]:
        base.resize_token_embeddings(tokens, mean_resizing=False)
    return base if config.quantize != "none" else base.to(device)


def checkpoint_dtype(config: MllmConfig) -> torch.dtype:
    """Data type in which the base's weights are stored; loads none. float32 if it names none.

    Raises:
        ArtifactNetError: the base cannot be read.
    """
    from transformers import AutoConfig

    dtype = _from_pretrained(AutoConfig, config).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def pin_base(config: MllmConfig, base: Any) -> MllmConfig:
    """The same config with the commit that was loaded, or the folder by its full path."""
    assert config.base is not None
    if Path(config.base).is_dir():
        return replace(config, base=str(Path(config.base).resolve()))
    return replace(config, revision=getattr(base.config, "_commit_hash", None) or config.revision)


def _from_pretrained(auto_class: Any, config: MllmConfig, hint: str = "", **options: Any) -> Any:
    """Read a part of the base; any problem with it becomes a one-line error."""
    if config.base is None:
        raise ArtifactNetError("mllm.base is not set: give a checkpoint's name or folder")
    what = f"mllm.base={config.base}"
    if not Path(config.base).exists():
        if config.base.startswith((".", "/", "~")):  # no name on the hub begins so
            raise ArtifactNetError(f"{what}: no such folder; artifactnet build-base makes bases")
        what += " (no such folder here; artifactnet build-base makes bases)"
    return read_checkpoint(auto_class, config.base, config.revision, what, hint, **options)


def read_checkpoint(
    auto_class: Any, base: str, revision: str | None, what: str, hint: str = "", **options: Any
) -> Any:
    """Read a part of a checkpoint; any problem with it becomes a one-line error.

    Args:
        auto_class: of transformers, with ``from_pretrained``.
        base: name or folder.
        revision: of a name; a folder has none.
        what: names the checkpoint in errors, as the user gave it.
        hint: ends errors.
        options: of ``from_pretrained``.

    Raises:
        ArtifactNetError: it is missing, broken, or nothing that this class reads.
    """
    from safetensors import SafetensorError

    try:
        return auto_class.from_pretrained(
            base,
            revision=None if Path(base).is_dir() else revision,
            trust_remote_code=False,
            **options,
        )
    # what transformers raises for missing, unknown and broken parts
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, struct.error) as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactNetError(
            f"{what}: cannot be loaded: {reason}{hint and f'; {hint}'}"
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


def choose_weights(base: Any, config: MllmConfig, new_tokens: Sequence[int] = ()) -> Any:
    """The base with those weights open to training that the config asks for.

    ``mllm.lora_rank=0``: all of its own, or with ``mllm.tune=projector`` those between vision tower
    and language model. Otherwise LoRA adapters on the linear layers of language model, vision tower
    and projector; with ``mllm.tune=language`` of the language model alone, and with
    ``language_projector`` the projector learns beside them, whole. With adapters, the new tokens'
    rows of the embedding learn, too, and of the output layer if that has its own weights.

    Raises:
        ArtifactNetError: the projector is to learn, and the base has none of that name.
    """
    if config.tune in ("projector", "language_projector") and not any(
        name.endswith(_PROJECTOR) for name, _ in base.named_modules()
    ):
        raise ArtifactNetError(
            f"mllm.tune={config.tune}: the base's family {base.config.model_type!r} has no "
            "separate projector (InternVL and LLaVA have); set mllm.tune=language or all"
        )
    if config.lora_rank:
        return _to_peft_model(base, config, new_tokens)
    if config.tune == "projector":
        base.requires_grad_(False)
        for name, parameter in base.named_parameters():
            parameter.requires_grad_(f"{_PROJECTOR}." in name)
    return base


def _to_peft_model(base: Any, config: MllmConfig, new_tokens: Sequence[int]) -> Any:
    """The base with adapters; everything else is frozen. See `choose_weights`."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    rows = {"embed_tokens": list(new_tokens)} if new_tokens else {}
    tied = base.get_input_embeddings().weight is base.get_output_embeddings().weight
    if rows and not tied:  # peft follows a tied output layer by itself
        rows["lm_head"] = list(new_tokens)
    if config.quantize != "none":
        base = prepare_model_for_kbit_training(
            base, use_gradient_checkpointing=config.gradient_checkpointing
        )
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=config.lora_dropout,
        target_modules="all-linear" if config.tune == "all" else _language_layers(base),
        trainable_token_indices=rows or None,
        modules_to_save=[_PROJECTOR] if config.tune == "language_projector" else None,
    )
    model = get_peft_model(base, lora)
    for name, module in model.named_modules():
        if name.endswith(f".{_PROJECTOR}.{WHOLE}.default"):
            _keep_in_float32(module)
    return model


def _keep_in_float32(module: torch.nn.Module) -> None:
    """Learn a module of a bfloat16 base in float32, as peft lets adapters; it answers in bfloat16.

    In bfloat16, small optimizer steps would be rounded away.
    """
    dtype = next(module.parameters()).dtype
    if dtype == torch.float32:
        return

    def widen(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(each.to(next(module.parameters()).dtype) for each in inputs)

    def narrow(_module: torch.nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.to(dtype)

    module.float().register_forward_pre_hook(widen)
    module.register_forward_hook(narrow)


def _language_layers(base: Any) -> list[str]:
    """Paths of the linear layers of the language model, without its output layer."""
    language = base.get_decoder()
    (name,) = (name for name, module in base.named_modules() if module is language)
    return [
        f"{name}.{path}"
        for path, module in language.named_modules()
        if isinstance(module, torch.nn.Linear)  # quantised ones, too
    ]


def adapter_state(base: Any) -> dict[str, Tensor]:
    """Adapters and new token rows, by peft's names."""
    from peft import get_peft_model_state_dict

    state: dict[str, Tensor] = get_peft_model_state_dict(base, save_embedding_layers=False)
    return state


def load_adapter_state(base: Any, state: dict[str, Tensor]) -> list[str]:
    """Load an `adapter_state`; returns the names that do not match, and then loads nothing."""
    from peft import set_peft_model_state_dict

    unmatched = sorted(set(adapter_state(base)) ^ set(state))
    if not unmatched:
        set_peft_model_state_dict(base, state)
    return unmatched


def merge_adapters(base: Any) -> Any:
    """The base model with its adapters added to its weights; invalidates ``base``."""
    return base.merge_and_unload()
