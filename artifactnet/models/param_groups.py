"""Optimizer groups: no decay on norms, biases and positions; smaller steps in earlier blocks."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from artifactnet.config import OptimConfig
from artifactnet.models.artifact_net import ArtifactNet

_NO_DECAY = re.compile(r"(pos_embed|cls_token|reg_token|dist_token|relative_position|gamma)")
_BLOCK = re.compile(r"\.blocks\.(\d+)\.")


def parameter_groups(model: ArtifactNet, optim: OptimConfig) -> list[dict[str, Any]]:
    """AdamW groups of the trainable parameters.

    The backbone learns at ``lr`` times ``layer_decay`` to the power of the number of blocks
    above (patch embedding and tokens count as below the first block), the head at ``head_lr``.

    Returns:
        Groups with ``params``, ``lr``, ``weight_decay`` and ``name``; every trainable
        parameter is in exactly one.
    """
    depth = model.backbone.depth
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        lr = _learning_rate(name, depth, optim)
        decay = 0.0 if _skips_decay(name, parameter) else optim.weight_decay
        group = groups.setdefault(
            (lr, decay),
            {"params": [], "lr": lr, "weight_decay": decay, "name": f"lr{lr:g}_wd{decay:g}"},
        )
        group["params"].append(parameter)
    return list(groups.values())


def _skips_decay(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim <= 1 or _NO_DECAY.search(name) is not None


def _learning_rate(name: str, depth: int, optim: OptimConfig) -> float:
    if not name.startswith("backbone."):
        return optim.lr if optim.head_lr is None else optim.head_lr
    match = _BLOCK.search(name)
    if match:
        above = depth - 1 - int(match.group(1))
    else:
        above = 0 if ".norm." in name or ".fc_norm." in name else depth
    return optim.lr * optim.layer_decay**above
