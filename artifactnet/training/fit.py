"""Lightning, set up for a run: device, precision, callbacks, logs, resuming, interrupts."""

from __future__ import annotations

import importlib.util
import logging
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EMAWeightAveraging,
    LearningRateMonitor,
)
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.strategies import Strategy
from torch.utils.data import DataLoader

from artifactnet.config import Config
from artifactnet.data.datamodule import DataModule
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.runs import run_folder
from artifactnet.runs.device import is_main_process
from artifactnet.training import components
from artifactnet.training.callbacks import Bar, Pictures, PlainLines
from artifactnet.training.checkpoints import AtomicCheckpointIO, BestModel, LastCheckpoint
from artifactnet.training.module import DetectorModule

_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


class DataLoaders(Protocol):
    """Data whose images are dealt out among processes."""

    def train_loader(self, rank: int = 0, world: int = 1) -> DataLoader[Any]:
        """Training batches of one process."""
        ...

    def val_loader(self, rank: int = 0, world: int = 1) -> DataLoader[Any]:
        """Validation batches of one process."""
        ...


class Loaders(pl.LightningDataModule):
    """The run's loaders, split by process once Lightning knows how many there are."""

    def __init__(self, data: DataLoaders) -> None:
        super().__init__()
        self.data = data

    def train_dataloader(self) -> DataLoader:
        """This process's share of the training images."""
        assert self.trainer is not None
        return self.data.train_loader(self.trainer.global_rank, self.trainer.world_size)

    def val_dataloader(self) -> DataLoader:
        """This process's share of the validation images."""
        assert self.trainer is not None
        return self.data.val_loader(self.trainer.global_rank, self.trainer.world_size)


def fit(
    module: DetectorModule, data: DataModule, best: BestModel, folder: Path, device: str
) -> tuple[pl.Trainer, float]:
    """Train a detector, see `fit_module`; pictures of its maps are drawn on the way."""
    config = module.config
    distributed = config.train.strategy == "ddp" or config.train.devices > 1
    strategy = components.ddp_strategy(config) if distributed else "auto"
    pictures = _pictures(module, data, folder)
    return fit_module(module, config, data, best, folder, device, strategy, pictures)


def fit_module(
    module: pl.LightningModule,
    config: Config,
    data: DataLoaders,
    best: BestModel,
    folder: Path,
    device: str,
    strategy: str | Strategy,
    pictures: Sequence[Callback] = (),
) -> tuple[pl.Trainer, float]:
    """Train until the run's last step, from the last checkpoint where the run resumes.

    Args:
        module: the model under training.
        config: the run.
        data: its data.
        best: keeps the best model; the final weights are always validated for it.
        folder: folder of the run.
        device: ``cuda`` or ``cpu``.
        strategy: of Lightning.
        pictures: callbacks that look at validated weights.

    Returns:
        The trainer, and the seconds that training took.

    Raises:
        KeyboardInterrupt: Ctrl-C; how to go on has been printed.
    """
    callbacks = _callbacks(config, best, folder, pictures)
    trainer = _trainer(config, folder, device, strategy, callbacks)
    checkpoint: Path | None = folder / run_folder.CHECKPOINT
    if not config.resume:
        checkpoint = None
    elif not (folder / run_folder.CHECKPOINT).exists():
        if is_main_process():
            print("resume: stopped before the end of its first epoch; starting again")
        checkpoint = None
    loaders = Loaders(data)
    started = time.perf_counter()
    with _interruptible(trainer, folder):
        trainer.fit(module, datamodule=loaders, ckpt_path=checkpoint, weights_only=True)
        if best.step != trainer.global_step:  # eval_every or max_steps left the end unjudged
            trainer.validate(module, datamodule=loaders, verbose=False)
    return trainer, time.perf_counter() - started


def _trainer(
    config: Config, folder: Path, device: str, strategy: str | Strategy, callbacks: list[Callback]
) -> pl.Trainer:
    train = config.train
    precision = _PRECISION.get(train.precision)
    if precision is None:  # auto
        bf16 = device == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bf16-mixed" if bf16 else "32-true"
    return pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=train.devices,
        strategy=strategy,
        precision=precision,  # type: ignore[arg-type]
        plugins=[AtomicCheckpointIO()],
        logger=_loggers(config, folder),
        callbacks=callbacks,
        max_epochs=train.epochs,
        max_steps=-1 if train.max_steps is None else train.max_steps,
        check_val_every_n_epoch=train.eval_every,
        num_sanity_val_steps=0,
        log_every_n_steps=train.log_every,
        accumulate_grad_batches=train.accumulate,
        gradient_clip_val=config.optim.clip_norm or None,
        # some CUDA kernels have no deterministic form (resizing position embeddings): warn there
        deterministic=("warn" if device == "cuda" else True) if train.deterministic else False,
        inference_mode=False,  # weight averages are swapped in and out during validation
        # batch norm of the segmentation heads; the synchronised form exists on GPUs alone
        sync_batchnorm=device == "cuda" and train.devices > 1,
        use_distributed_sampler=False,  # our sampler splits batches itself
        enable_progress_bar=sys.stdout.isatty(),
        enable_model_summary=False,
        default_root_dir=folder,
    )


def _pictures(module: DetectorModule, data: DataModule, folder: Path) -> list[Callback]:
    """What draws a detector's maps, where the run wants it and there are any."""
    config, model = module.config, module.model
    drawn = model.has_attention or model.has_segmentation or model.has_heatmap
    if not config.train.picture_every or not drawn:
        return []
    preprocess = preprocess_of(model)
    count, every = config.train.pictures, config.train.picture_every
    target, validation = folder / run_folder.PICTURES, data.splits["val"]
    skip = config.data.on_error == "skip"
    return [Pictures(target, validation, preprocess, count, every, skip)]


def _callbacks(
    config: Config, best: BestModel, folder: Path, pictures: Sequence[Callback]
) -> list[Callback]:
    """The order matters: what judges or draws validated weights precedes weight averaging."""
    callbacks: list[Callback] = [best, *pictures]
    if config.optim.ema > 0:
        callbacks.append(EMAWeightAveraging(decay=config.optim.ema))
    callbacks.append(LearningRateMonitor("step"))
    callbacks.append(PlainLines(best))
    if sys.stdout.isatty():
        callbacks.append(Bar(leave=False))
    callbacks.append(LastCheckpoint(folder / run_folder.CHECKPOINT))
    return callbacks


def _loggers(config: Config, folder: Path) -> list[Logger]:
    """CSV always; every start of a run has its own ``version_N`` in both."""
    loggers: list[Logger] = [CSVLogger(folder, name="logs")]
    if not config.train.tensorboard:
        return loggers
    if importlib.util.find_spec("tensorboard") is None:
        if is_main_process():
            print("warning: no TensorBoard log: pip install tensorboard or train.tensorboard=false")
        return loggers
    return [*loggers, TensorBoardLogger(folder, name="tensorboard")]


@contextmanager
def _interruptible(trainer: pl.Trainer, folder: Path) -> Iterator[None]:
    """Turn Lightning's exit after Ctrl-C back into a KeyboardInterrupt, saying how to go on."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        interrupted = isinstance(stop, KeyboardInterrupt) or trainer.interrupted
        if not interrupted:
            raise
        signal.signal(signal.SIGINT, handler)
        state = (
            "the end of the last epoch"
            if (folder / run_folder.CHECKPOINT).exists()
            else "its start"
        )
        if is_main_process():
            print(
                f"\nstopped; to go on from {state}: the same command with resume=true", flush=True
            )
        raise KeyboardInterrupt from stop


@contextmanager
def global_state() -> Iterator[None]:
    """Quiet Lightning; put process-wide switches of torch back as they were at the end."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    settings: Any = torch.utils.deterministic
    fill = settings.fill_uninitialized_memory
    settings.fill_uninitialized_memory = False  # made for finding bugs, and not cheap
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # advice that does not apply (decoding is cheap, short epochs are normal, frozen
            # parts are meant to be), and Lightning's use of an outdated torch function
            for text in (
                ".*does not have many workers",
                ".*smaller than the logging interval",
                ".*in eval mode at the start of training",
                ".*isinstance.treespec, LeafSpec",
            ):
                warnings.filterwarnings("ignore", text)
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        settings.fill_uninitialized_memory = fill
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
