"""AdamW: groups of parameters with their learning rates, and the schedule over a run."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from artifactnet.config import OptimConfig
from artifactnet.models.artifact_net import ArtifactNet

_NO_DECAY = re.compile(r"(pos_embed|cls_token|reg_token|dist_token|relative_position|gamma)")
_BLOCK = re.compile(r"\.blocks\.(\d+)\.")  # of a plain ViT
_STAGE = re.compile(r"^backbone\.net\.(?:layers|stages|blocks)[._](\d+)")
_LAYER = re.compile(r"^backbone\.net\.layer(\d+)\.")  # ResNet counts its stages from 1


def lr_factor(
    step: int, total: int, *, warmup: float, schedule: str, min_ratio: float = 0.0
) -> float:
    """Factor of the base learning rate at an optimizer step.

    Rises linearly over the first ``round(warmup * total)`` steps (never starting at 0, so that
    no step is wasted), then stays (``constant``) or falls to ``min_ratio``, which the last step
    reaches: along half a cosine, or along a line (mmsegmentation's ``poly`` of power 1).

    Args:
        step: 0-based optimizer step; steps beyond the last keep the last one's factor.
        total: optimizer steps of the whole run, at least 1.
        warmup: share of all steps in [0, 1].
        schedule: ``cosine``, ``linear`` or ``constant``.
        min_ratio: factor at the last step unless ``constant``, in [0, 1].

    Raises:
        ValueError: unknown schedule, or no steps.
    """
    if schedule not in ("cosine", "linear", "constant"):
        raise ValueError(f"schedule must be cosine, linear or constant, not {schedule!r}")
    if total < 1:
        raise ValueError(f"a run has at least one step, not {total}")
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - rising) / max(1, total - 1 - rising))
    left = 1 - progress if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return min_ratio + (1 - min_ratio) * left


def adamw_with_schedule(
    groups: list[dict[str, Any]], optim: OptimConfig, total: int
) -> dict[str, Any]:
    """AdamW over parameter groups, with `lr_factor` per step, as Lightning takes them."""
    optimizer = torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.betas[0], optim.betas[1]))

    def factor(step: int) -> float:
        return lr_factor(
            step, total, warmup=optim.warmup, schedule=optim.schedule, min_ratio=optim.min_lr_ratio
        )

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def group_parameters(
    model: nn.Module, settings: Callable[[str, nn.Parameter], tuple[float, float]]
) -> list[dict[str, Any]]:
    """AdamW groups (``params``, ``lr``, ``weight_decay``, ``name``) of the trainable parameters.

    ``settings`` gives learning rate and weight decay for a parameter and its name; every trainable
    parameter is in exactly one group.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        lr, decay = settings(name, parameter)
        group = groups.setdefault(
            (lr, decay),
            {"params": [], "lr": lr, "weight_decay": decay, "name": f"lr{lr:g}_wd{decay:g}"},
        )
        group["params"].append(parameter)
    return list(groups.values())


def parameter_groups(model: ArtifactNet, optim: OptimConfig) -> list[dict[str, Any]]:
    """`group_parameters` of a detector, with layer-wise learning rate decay.

    The backbone learns at ``lr`` times ``layer_decay`` to the power of the number of blocks above,
    or of stages in a net with a pyramid of them (patch embedding and tokens count as below the
    first), the heads at ``head_lr``. Norms, biases, tokens and position embeddings do not decay.
    """
    place_of = _block if model.backbone.depth else _stage
    depth = 1 + max(place_of(name) for name, _ in model.named_parameters())

    def settings(name: str, parameter: nn.Parameter) -> tuple[float, float]:
        decay = 0.0 if parameter.ndim <= 1 or _NO_DECAY.search(name) else optim.weight_decay
        if not name.startswith("backbone."):
            return optim.lr if optim.head_lr is None else optim.head_lr, decay
        place = place_of(name)
        above = depth - 1 - place
        if place < 0 and (".norm." in name or ".fc_norm." in name):
            above = 0
        return optim.lr * optim.layer_decay**above, decay

    return group_parameters(model, settings)


def _block(name: str) -> int:
    """Index of the block of a plain ViT, or -1."""
    match = _BLOCK.search(name)
    return int(match[1]) if match else -1


def _stage(name: str) -> int:
    """Index of the stage of another net, or -1."""
    match, layer = _STAGE.search(name), _LAYER.search(name)
    if layer:
        return int(layer[1]) - 1
    return int(match[1]) if match else -1
