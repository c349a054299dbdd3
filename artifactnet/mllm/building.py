"""A HEIE from a configuration."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from artifactnet.config import Config, HeatmapConfig, MllmConfig
from artifactnet.mllm.adapters import add_adapters
from artifactnet.mllm.base import load_base, load_processor
from artifactnet.mllm.heie import HEIE
from artifactnet.mllm.processing import Processing
from artifactnet.types import ArtifactNetError


def build(config: Config, device: str | torch.device = "cpu") -> HEIE:
    """Base model, adapters, mapper and scorer of a run, the last two with random weights.

    With ``mllm.lora_rank=0`` every weight of the base learns, else only adapters, new token rows,
    mapper and scorer.

    Args:
        config: ``mllm`` and ``model.heatmap`` are used, and ``seed`` by whoever calls.
        device: where it shall run.

    Raises:
        ArtifactNetError: the base cannot be used, or ``model.heatmap.tile`` is not its tile.
    """
    model = assemble(config.mllm, config.model.heatmap, device, training=True)
    if config.mllm.gradient_checkpointing:
        model.causal.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def assemble(
    mllm: MllmConfig,
    heatmap: HeatmapConfig,
    device: str | torch.device = "cpu",
    training: bool = False,
) -> HEIE:
    """`build` without what only training needs.

    Args:
        mllm: the base and its adapters.
        heatmap: mapper and scorer.
        device: where it shall run.
        training: see ``tuned`` of `artifactnet.mllm.base.load_base`.

    Raises:
        ArtifactNetError: see `build`.
    """
    processor = load_processor(mllm)
    processing = Processing(processor, heatmap.max_tiles, mllm.question)
    if heatmap.tile != processing.tile:
        raise ArtifactNetError(
            f"model.heatmap.tile={heatmap.tile}, but {mllm.base} takes tiles of "
            f"{processing.tile} pixels: set model.heatmap.tile={processing.tile} and "
            f"model.image_size=[{processing.tile}, {processing.tile}]"
        )
    tuned = training and not mllm.lora_rank
    base = load_base(mllm, len(processor.tokenizer), device, tuned)
    mllm = _pinned(mllm, base)
    if mllm.lora_rank:
        base = add_adapters(base, mllm, [processing.map_id, processing.score_id])
    return HEIE(base, processing, copy.deepcopy(heatmap), mllm).to(device)


def _pinned(mllm: MllmConfig, base: Any) -> MllmConfig:
    """The same with the commit that was loaded, or the folder by its full path."""
    assert mllm.base is not None
    if Path(mllm.base).is_dir():
        return replace(mllm, base=str(Path(mllm.base).resolve()))
    commit = getattr(base.config, "_commit_hash", None)
    return replace(mllm, revision=commit or mllm.revision)
