"""What the training steps of all models have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from artifactnet.config import OptimConfig
from artifactnet.engine.schedule import lr_factor
from artifactnet.types import ArtifactNetError, Record

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
