"""Optimizer groups: no decay on norms, biases and positions; smaller steps in earlier blocks."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from artifactnet.config import OptimConfig
from artifactnet.models.artifact_net import ArtifactNet

_NO_DECAY = re.compile(r"(pos_embed|cls_token|reg_token|dist_token|relative_position|gamma)")
_BLOCK = re.compile(r"\.blocks\.(\d+)\.")  # of a plain ViT
_STAGE = re.compile(r"^backbone\.net\.(?:layers|stages|blocks)[._](\d+)")
_LAYER = re.compile(r"^backbone\.net\.layer(\d+)\.")  # ResNet counts its stages from 1


def parameter_groups(model: ArtifactNet, optim: OptimConfig) -> list[dict[str, Any]]:
    """AdamW groups of the trainable parameters.

    The backbone learns at ``lr`` times ``layer_decay`` to the power of the number of blocks
    above, or of stages in a net that has a pyramid of them (patch embedding and tokens count as
    below the first), the heads at ``head_lr``.

    Returns:
        Groups with ``params``, ``lr``, ``weight_decay`` and ``name``; every trainable
        parameter is in exactly one.
    """
    place_of = _block if model.backbone.depth else _stage
    depth = 1 + max(place_of(name) for name, _ in model.named_parameters())
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        lr = _learning_rate(name, place_of(name), depth, optim)
        decay = 0.0 if _skips_decay(name, parameter) else optim.weight_decay
        group = groups.setdefault(
            (lr, decay),
            {"params": [], "lr": lr, "weight_decay": decay, "name": f"lr{lr:g}_wd{decay:g}"},
        )
        group["params"].append(parameter)
    return list(groups.values())


def _skips_decay(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim <= 1 or _NO_DECAY.search(name) is not None


def _block(name: str) -> int:
    """Number of the block of a plain ViT, or -1."""
    match = _BLOCK.search(name)
    return int(match[1]) if match else -1


def _stage(name: str) -> int:
    """Number of the stage of another net, from 0, or -1."""
    match, layer = _STAGE.search(name), _LAYER.search(name)
    if layer:
        return int(layer[1]) - 1
    return int(match[1]) if match else -1


def _learning_rate(name: str, place: int, depth: int, optim: OptimConfig) -> float:
    if not name.startswith("backbone."):
        return optim.lr if optim.head_lr is None else optim.head_lr
    above = depth - 1 - place
    if place < 0 and (".norm." in name or ".fc_norm." in name):
        above = 0
    return optim.lr * optim.layer_decay**above
