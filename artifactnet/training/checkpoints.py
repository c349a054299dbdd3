"""What a run saves while it trains: the state to resume from, and the best model so far."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO

from artifactnet.files import atomic_path
from artifactnet.training.base import TrainingModule
from artifactnet.types import ArtifactNetError


class AtomicCheckpointIO(CheckpointIO):
    """Checkpoints of tensors and plain values, replaced only by complete ones."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write atomically; if that fails, the previous checkpoint is untouched."""
        try:
            with atomic_path(path) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into the latter
            raise ArtifactNetError(
                f"{path}: the checkpoint could not be saved (is the disk full?): "
                f"{_first_line(error)}. What was saved before is intact: free some space, then "
                "continue with resume=true"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read tensors and plain values; never unpickles anything else, whoever asks."""
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # zip, pickle and i/o errors: all mean that it is unusable
            raise ArtifactNetError(
                f"{path}: not a usable checkpoint: {_first_line(error)}. Start again with "
                "overwrite=true"
            ) from error
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


class LastCheckpoint(Checkpoint):
    """Saves everything a continuation needs at the end of every epoch, in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; after validation and after every other callback."""
        trainer.save_checkpoint(self.path)


class BestModel(Callback):
    """Computes the validation figures and saves the model whenever they are the best so far.

    Equal values of the monitored figure are common on small validation sets; the lower validation
    loss decides then, and the earlier epoch if that is equal too. The callback must come before a
    weight-averaging one: that swaps the averaged weights in for validation, and they are saved.

    Args:
        path: of the model, replaced each time.
        monitor: a validation figure (higher is better), or ``loss``.
        extra: facts to keep with the model.
    """

    def __init__(self, path: Path, monitor: str, extra: dict[str, Any]) -> None:
        self.path = path
        self.monitor = monitor
        self.extra = extra
        self.latest: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.epoch = 0  # epochs completed when the best was found
        self.step = -1  # optimizer steps taken at the latest validation

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the weights that have just been validated with the best ones."""
        assert isinstance(pl_module, TrainingModule)
        self.latest = pl_module.validation_figures()
        self.step = trainer.global_step
        pl_module.log_dict({f"val/{name}": value for name, value in self.latest.items()})
        loss = self.latest["loss"]
        if not math.isfinite(loss):
            raise ArtifactNetError(
                f"the validation loss is {loss} after step {self.step}: training diverged. Lower "
                f"optim.lr or set optim.clip_norm; {self.path.parent} keeps the last good state"
            )
        if self.best and not self._rank(self.latest) > self._rank(self.best):
            return
        self.best = self.latest
        self.epoch = epochs_completed(trainer)
        facts = {"epoch": self.epoch, "step": self.step, "validation": self.best}
        pl_module.save_model(self.path, {**self.extra, **facts})

    def _rank(self, figures: dict[str, float]) -> tuple[float, float]:
        loss = figures["loss"]
        # rounded: equal counts must tie although their ratios may differ in the last bit
        return (-loss if self.monitor == "loss" else round(figures[self.monitor], 6)), -loss

    def state_dict(self) -> dict[str, Any]:
        """Plain values for the checkpoint."""
        return {"latest": self.latest, "best": self.best, "epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.latest, self.best = state_dict["latest"], state_dict["best"]
        self.epoch, self.step = state_dict["epoch"], state_dict["step"]


def epochs_completed(trainer: pl.Trainer) -> int:
    """Epochs whose training steps are done, seen from a validation hook."""
    return trainer.current_epoch + (1 if trainer.state.fn == "fit" else 0)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
