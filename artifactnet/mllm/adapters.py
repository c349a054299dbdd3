"""Low-rank adapters and new token rows on a base model: what is learnt, saved and merged."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from artifactnet.config import MllmConfig


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
