"""The training step and optimizer that a detector and a HEIE on a language model share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from artifactnet.config import Config
from artifactnet.training.optim import adamw_with_schedule
from artifactnet.types import ArtifactNetError, Record

_SHOWN_FILES = 4  # in the message about a loss that is not finite
_INTACT = "what was saved before is intact"


class TrainingModule(pl.LightningModule):
    """A model under training: seeding, finite losses and gradients, logging, AdamW.

    Subclasses define ``training_step``, ``validation_step`` and the methods below that raise
    `NotImplementedError`.

    Attributes:
        scored: a training image of any process had a score, so that the score was trained.
    """

    model: nn.Module

    def __init__(self, model: nn.Module, config: Config) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.scored = False

    def parameter_groups(self) -> list[dict[str, Any]]:
        """AdamW groups with ``params``, ``lr`` and ``weight_decay``."""
        raise NotImplementedError

    def count_parameters(self) -> int:
        """Size of the model, for ``results.json``."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def trains_score(self, batch: Any) -> bool:
        """Whether a loss of this batch reaches the score."""
        raise NotImplementedError

    def validation_figures(self) -> dict[str, float]:
        """Figures of the validation that has just run, over all processes; starts them anew."""
        raise NotImplementedError

    def save_model(self, path: Path, facts: dict[str, Any]) -> None:
        """Write the model, with facts about its training.

        Called in every process, since all of them gather sharded weights; one alone writes.
        """
        raise NotImplementedError

    def on_train_epoch_start(self) -> None:
        """Reseed from (seed, epoch, rank), so that a resumed run draws what it would have."""
        text = f"{self.config.seed}/{self.current_epoch}/{self.global_rank}"
        digest = hashlib.blake2b(text.encode(), digest_size=7).digest()
        torch.manual_seed(int.from_bytes(digest, "big"))

    def finish_step(self, terms: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Log the loss of a training step and check that it is finite in every process.

        All processes learn all of it from one reduction: whether a loss is not finite, whether a
        score was trained, and the terms, as means over the images of all processes.

        Args:
            terms: of the loss, their weighted sum under ``loss``; the same names in all processes.
            batch: with ``record``, one per image.

        Returns:
            The loss of this process.

        Raises:
            ArtifactNetError: the loss is not finite in any process; all of them stop.
        """
        loss, images = terms["loss"], len(batch.record)
        scored = self.scored or self.trains_score(batch)
        # float64 holds the product of a float32 and a count exactly
        sums = torch.stack([term.detach().double() * images for term in terms.values()])
        counts = sums.new_tensor([float(scored), float(images)])
        packed = torch.cat([(~torch.isfinite(loss)).double()[None], counts, sums])
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(packed)
        broken, scores, total = packed[:3].tolist()
        if broken:
            raise ArtifactNetError(
                f"{_not_finite(self.global_step, terms, batch.record)} Lower optim.lr, lengthen "
                f"optim.warmup, set optim.clip_norm=1 or train.precision=32; {_INTACT}"
            )
        self.scored = scores > 0
        means = (packed[3:] / total).float().unbind()
        self.log_dict(
            {f"train/{name}": mean for name, mean in zip(terms, means, strict=True)},
            prog_bar=True,
            on_step=True,
            on_epoch=True,
            batch_size=int(total),
        )
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise `ArtifactNetError` before a gradient that is not finite reaches the weights.

        With 16-bit floats overflow is normal: the gradient scaler skips such a step. DeepSpeed
        does the same, and does not expose gradients.
        """
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if self.trainer.precision == "16-mixed" or not gradients:
            return
        norm: Any = torch.nn.utils.get_total_norm(gradients)
        norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if not math.isfinite(norm):
            raise ArtifactNetError(
                f"the gradient is not finite at step {self.global_step} although the loss is. "
                f"Lower optim.lr, lengthen optim.warmup or set train.precision=32; {_INTACT}"
            )
        self.log("train/grad_norm", norm)

    def configure_optimizers(self) -> Any:
        """AdamW over the parameter groups, with warm-up and decay per step."""
        steps = int(self.trainer.estimated_stepping_batches)
        return adamw_with_schedule(self.parameter_groups(), self.config.optim, steps)


def _not_finite(step: int, terms: Mapping[str, Tensor], records: Sequence[Record]) -> str:
    """Sentence about a loss that is not finite: its terms, and the images it came from."""
    values = ", ".join(f"{name} {float(value.detach()):g}" for name, value in terms.items())
    files = ", ".join(record.location for record in records[:_SHOWN_FILES])
    files += ", ..." if len(records) > _SHOWN_FILES else ""
    return f"the loss is not finite at step {step} ({values}; images {files})."
