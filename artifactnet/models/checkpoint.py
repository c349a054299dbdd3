"""Saved models: one safetensors file with the config as JSON in its metadata, never a pickle."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from artifactnet.config import LoraConfig, to_dict
from artifactnet.files import atomic_path
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.backbone import Tried
from artifactnet.models.lora import merged, rename_adapted
from artifactnet.models.metadata import FORMAT, read_metadata
from artifactnet.models.shared_backbone import Backbones, complete, leave_out
from artifactnet.types import ArtifactNetError


def save_checkpoint(
    model: ArtifactNet,
    path: str | Path,
    extra: dict[str, Any] | None = None,
    *,
    half: bool = False,
    backbones: Backbones | None = None,
) -> None:
    """Write weights, config, preprocessing and notices to one file, atomically.

    LoRA adapters are merged, so that the file loads without peft. ``extra`` are JSON-ready facts to
    keep with it. ``half`` stores weights in float16; `load_checkpoint` restores float32.
    ``backbones``, with ``half``: what equals these published weights is left out, see
    `shared_backbone.leave_out`.

    Raises:
        ArtifactNetError: the disk refused, or float16 cannot hold a weight; an older file stays.
    """
    config = copy.deepcopy(model.config)
    if config.lora.rank:
        model = copy.copy(model)
        model._modules = dict(model._modules)
        model.backbone = copy.copy(model.backbone)
        model.backbone._modules = {"net": merged(model.backbone.net)}
        config.lora = LoraConfig()
    config.weights = None  # the file holds them all
    config.mean, config.std = list(model.mean), list(model.std)
    metadata = {
        "format": FORMAT,
        "model": json.dumps(to_dict(config)),
        "notices": json.dumps(list(model.notices)),
        "extra": json.dumps(extra or {}),
        "tried": json.dumps(model.backbone.tried._asdict()),
    }
    state = {k: v.detach().to("cpu").contiguous() for k, v in model.state_dict().items()}
    if half:
        state = {name: _halved(name, tensor) for name, tensor in state.items()}
    if backbones:
        state = leave_out(state, model, backbones)
        facts = {k: {"name": b.name, "sha256": b.sha256} for k, b in backbones.items()}
        metadata["backbones"] = json.dumps(facts)
    _write(state, path, metadata)


def rewrite_facts(
    source: str | Path, out: str | Path, model: dict[str, Any], extra: dict[str, Any]
) -> None:
    """Copy a saved model with other facts about it, atomically; its tensors stay bit for bit.

    Args:
        source: the saved model.
        out: the file to write; may be ``source``.
        model: values that replace those of its config.
        extra: facts to add to, or replace in, those kept with it.

    Raises:
        ArtifactNetError: see `read_metadata`; or the disk refused: an older file stays.
    """
    read_metadata(source)  # refuses what is no model of ours
    with safe_open(source, framework="pt") as handle:
        metadata = dict(handle.metadata())
    metadata["model"] = json.dumps(json.loads(metadata["model"]) | model)
    metadata["extra"] = json.dumps(json.loads(metadata["extra"]) | extra)
    state = _read_state(source)
    _write(state, out, metadata)


def _write(state: dict[str, torch.Tensor], path: str | Path, metadata: dict[str, str]) -> None:
    try:
        with atomic_path(path) as temporary:
            save_file(state, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise ArtifactNetError(f"{path}: the model could not be saved: {error}") from error


def _halved(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Weights as float16; whole numbers (indices, counters) as they are."""
    if not tensor.is_floating_point() or not tensor.numel():
        return tensor
    largest, limit = float(tensor.abs().max()), torch.finfo(torch.float16).max
    if not largest <= limit:  # also for NaN
        raise ArtifactNetError(
            f"{name}: a weight of magnitude {largest:g} cannot be stored in half precision, "
            f"whose limit is {limit:g}"
        )
    return tensor.half()


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> ArtifactNet:
    """Rebuild a saved model on ``device``, in eval mode.

    Raises:
        ArtifactNetError: see `read_metadata`; or the weights do not fit the saved config.
    """
    metadata = read_metadata(path)
    tried = metadata["tried"]
    model = ArtifactNet(metadata["model"], tried=None if tried is None else Tried(**tried))
    model.notices = metadata["notices"]
    state = _completed(_read_state(path), model, path, metadata["backbones"])
    missing, unexpected, misshapen = _load(model, state)
    if missing or unexpected or misshapen:
        raise ArtifactNetError(
            f"{path}: weights do not fit the saved config: missing {missing[:3]}, "
            f"unexpected {unexpected[:3]}, of another shape {misshapen[:3]}"
        )
    return model.to(device).eval()


def init_weights(model: ArtifactNet, path: str | Path) -> list[str]:
    """Start ``model`` from the weights of a saved one (``init_from``): weights only.

    Parts that only one of the models has (``segmentation``, ``evidence``) are left out or left
    fresh; all others must fit. The saved notices and trained categories replace the model's own.

    Returns:
        The parts left fresh.

    Raises:
        ArtifactNetError: another architecture; the message names the first keys.
    """
    metadata = read_metadata(path)
    state = _read_state(path)
    theirs, ours = _parts(state), _parts(model.state_dict())
    shared = {k: v for k, v in metadata["backbones"].items() if k.partition(".")[0] in ours}
    theirs |= {prefix.partition(".")[0] for prefix in shared}
    state = _completed(state, model, path, shared)
    state = {key: value for key, value in state.items() if key.partition(".")[0] in ours}
    fresh = sorted(ours - theirs)
    if model.config.lora.rank:
        state = rename_adapted(state, model.state_dict())
    missing, unexpected, misshapen = _load(model, state)
    missing = [k for k in missing if ".lora_" not in k and k.partition(".")[0] not in fresh]
    if missing or unexpected or misshapen:
        raise ArtifactNetError(
            f"init_from {path}: other architecture ({metadata['model'].backbone} there, "
            f"{model.config.backbone} here): missing {missing[:3]}, unexpected "
            f"{unexpected[:3]}, of another shape {misshapen[:3]}"
        )
    model.notices = metadata["notices"]
    if model.has_segmentation and "segmentation" not in fresh:
        model.config.segmentation.categories = metadata["model"].segmentation.categories
    return fresh


def _parts(state: dict[str, torch.Tensor]) -> set[str]:
    return {key.partition(".")[0] for key in state}


def _read_state(path: str | Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as handle:
        return {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118


def _completed(
    state: dict[str, torch.Tensor],
    model: ArtifactNet,
    path: str | Path,
    facts: dict[str, dict[str, str]],
) -> dict[str, torch.Tensor]:
    """The tensors in a file, and those that it left out."""
    if not facts:
        return state
    nets = {}
    for prefix in facts:
        try:
            nets[prefix] = model.get_submodule(prefix[:-1])
        except AttributeError as error:
            raise ArtifactNetError(
                f"{path}: leaves out {prefix[:-1]}, which the model has not"
            ) from error
    return complete(state, nets, path, facts)


def _load(
    model: ArtifactNet, state: dict[str, torch.Tensor]
) -> tuple[list[str], list[str], list[str]]:
    """Load what fits; names of missing, unexpected and misshapen tensors."""
    own = model.state_dict()
    misshapen = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
    fitting = {k: v for k, v in state.items() if k not in misshapen}
    missing, unexpected = model.load_state_dict(fitting, strict=False)
    return [k for k in missing if k not in misshapen], list(unexpected), misshapen
