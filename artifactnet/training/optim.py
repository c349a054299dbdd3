"""What the training steps of all models have in common."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from artifactnet.config import OptimConfig
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError, Record


def lr_factor(
    step: int, total: int, *, warmup: float, schedule: str, min_ratio: float = 0.0
) -> float:
    """What the base learning rate is multiplied with at an optimizer step.

    Rises linearly over the first ``round(warmup * total)`` steps (never starting at 0, so that
    no step is wasted), then stays (``constant``) or falls to ``min_ratio``, which the last step
    reaches: along half a cosine, or along a line (mmsegmentation's ``poly`` of power 1).

    Args:
        step: 0-based optimizer step; steps beyond the last keep the last one's factor.
        total: optimizer steps of the whole run, at least 1.
        warmup: share of all steps in [0, 1].
        schedule: ``cosine``, ``linear`` or ``constant``.
        min_ratio: factor at the last step unless ``constant``, in [0, 1].

    Returns:
        The factor, in (0, 1] for ``min_ratio`` > 0.

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


_FILES_SHOWN = 4


def reseed(seed: int, epoch: int, rank: int) -> None:
    """Seed PyTorch from (seed, epoch, rank), so that a resumed run draws what it would have."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{rank}".encode(), digest_size=7).digest()
    torch.manual_seed(int.from_bytes(digest, "big"))


def adamw(groups: list[dict[str, Any]], optim: OptimConfig, total: int) -> dict[str, Any]:
    """AdamW over parameter groups, with warm-up and decay per step, as Lightning takes them.

    Args:
        groups: with ``params``, ``lr`` and ``weight_decay``.
        optim: of the run.
        total: optimizer steps of the whole run.
    """
    optimizer = torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.betas[0], optim.betas[1]))

    def factor(step: int) -> float:
        return lr_factor(
            step,
            total,
            warmup=optim.warmup,
            schedule=optim.schedule,
            min_ratio=optim.min_lr_ratio,
        )

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def checked_loss(
    module: pl.LightningModule, terms: Mapping[str, Tensor], records: Sequence[Record], remedy: str
) -> Tensor:
    """The loss of a training step, its terms logged.

    Args:
        module: that takes the step.
        terms: of the loss, their weighted sum under ``loss``.
        records: of the batch's images.
        remedy: ends the message of the error.

    Raises:
        ArtifactNetError: the loss is not finite, on any process: all of them stop.
    """
    finite = bool(torch.isfinite(terms["loss"]))
    if not module.trainer.strategy.reduce_boolean_decision(finite, all=True):
        raise ArtifactNetError(f"{_not_finite(module.global_step, terms, records)} {remedy}")
    module.log_dict(
        {f"train/{name}": value.detach() for name, value in terms.items()},
        prog_bar=True,
        on_step=True,
        on_epoch=True,
        batch_size=len(records),
        sync_dist=module.trainer.world_size > 1,
    )
    return terms["loss"]


def _not_finite(step: int, parts: Mapping[str, Tensor], records: Sequence[Record]) -> str:
    """Sentence about a loss that is not finite: its parts, and the images it came from."""
    values = ", ".join(f"{name} {float(value.detach()):g}" for name, value in parts.items())
    names = [record.location for record in records]
    files = ", ".join(names[:_FILES_SHOWN]) + (", ..." if len(names) > _FILES_SHOWN else "")
    return f"the loss is not finite at step {step} ({values}; images {files})."
