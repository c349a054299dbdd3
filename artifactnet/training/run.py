"""A training run from its checks to its results: what a detector and a HEIE have in common."""

from __future__ import annotations

import importlib.util
import logging
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.strategies import Strategy
from torch.utils.data import DataLoader

from artifactnet import files
from artifactnet.config import Config, ConfigError
from artifactnet.data.sources.base import Splits
from artifactnet.evaluation import results as tables
from artifactnet.rules import problems
from artifactnet.runs import run_folder
from artifactnet.runs.device import choose_device, is_main_process
from artifactnet.runs.run_folder import RunResult
from artifactnet.training.base import TrainingModule
from artifactnet.training.callbacks import Bar, PlainLines
from artifactnet.training.checkpoints import AtomicCheckpointIO, BestModel, LastCheckpoint
from artifactnet.types import ArtifactNetError

_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


class RunSplits(Protocol):
    """The sources of a run, and a summary of their counts and ``warnings``."""

    splits: Splits
    summary: dict[str, Any]


class RunData(RunSplits, Protocol):
    """The data of a run with its loaders."""

    def train_loader(self, rank: int = 0, world: int = 1) -> DataLoader[Any]:
        """Training batches of one process."""
        ...

    def val_loader(self, rank: int = 0, world: int = 1) -> DataLoader[Any]:
        """Validation batches of one process."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has been checked and seeded.

    Attributes:
        device: ``cuda`` or ``cpu``.
        main: this process writes and prints; the others of a distributed run do not.
    """

    config: Config
    folder: Path
    device: str
    main: bool

    def open_folder(self, data: RunSplits, model: str, notices: Sequence[str] = ()) -> None:
        """Prepare the folder, write the config and the data's counts, and print what begins.

        ``model`` says what is trained, ``notices`` are known limits of the model before training.
        """
        if not self.main:
            return
        run_folder.prepare_run_folder(self.config)
        files.write_json(self.folder / run_folder.DATA, data.summary)
        counts = ", ".join(f"{name} {len(split.records)}" for name, split in data.splits.items())
        lines = [
            *_banner(notices),
            f"run {self.folder}: {model}",
            f"data {self.config.data.name}: {counts} images",
            *(f"warning: {warning}" for warning in data.summary["warnings"]),
        ]
        print("\n".join(lines), flush=True)

    def fit(
        self,
        module: TrainingModule,
        data: RunData,
        best: BestModel,
        strategy: str | Strategy,
        pictures: Sequence[Callback] = (),
    ) -> dict[str, Any]:
        """Train until the run's last step, from the last checkpoint if the run resumes.

        Args:
            module: the model under training.
            data: its data.
            best: keeps the best model; the final weights are always validated for it.
            strategy: of Lightning.
            pictures: callbacks that look at validated weights.

        Returns:
            Facts about the training, for ``results.json``.

        Raises:
            KeyboardInterrupt: Ctrl-C; how to resume has been printed.
        """
        trainer = self._trainer(best, strategy, pictures)
        saved = self.folder / run_folder.CHECKPOINT
        checkpoint = saved if self.config.resume and saved.exists() else None
        if self.config.resume and checkpoint is None and self.main:
            print("resume: stopped before the end of its first epoch; starting again")
        loaders = _Loaders(data)
        started = time.perf_counter()
        with self._interruptible(trainer):
            trainer.fit(module, datamodule=loaders, ckpt_path=checkpoint, weights_only=True)
            if best.step != trainer.global_step:  # not validated: eval_every or max_steps
                trainer.validate(module, datamodule=loaders, verbose=False)
        return {
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": round(time.perf_counter() - started, 1),
            "parameters": module.count_parameters(),
            "best_epoch": best.epoch,
            "best_validation": best.best,
        }

    def finish(
        self, results: Mapping[str, Any], figures: str, model: Path | str, usage: Sequence[str]
    ) -> RunResult:
        """Mark the run as finished, and print its results, where its model is."""
        training = results["training"]
        progress = {key: training[key] for key in ("epochs", "steps")}
        run_folder.finish_run(self.folder, progress)
        pictures = self.folder / run_folder.PICTURES
        lines = [
            "",
            *_banner(results["notices"]),
            f"results on the {results['data']['split']} split ({results['images']} images), model "
            f"of epoch {results['model']['epoch']} of {training['epochs']}:",
            figures,
            "",
            f"model      {model}",
            f"results    {self.folder / tables.MARKDOWN}, {self.folder / tables.JSON}",
            *([f"pictures   {pictures}"] if pictures.is_dir() else []),
            f"logs       {self.folder / 'logs'}",
            "",
            "use it:",
            *(f"    {line}" for line in usage),
        ]
        print("\n".join(lines), flush=True)
        return RunResult(self.folder, dict(results))

    def _trainer(
        self, best: BestModel, strategy: str | Strategy, pictures: Sequence[Callback]
    ) -> pl.Trainer:
        train, cuda = self.config.train, self.device == "cuda"
        precision = _PRECISION.get(train.precision)
        if precision is None:  # auto
            precision = "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true"
        # the order matters: what validates or draws weights precedes weight averaging
        callbacks: list[Callback] = [best, *pictures]
        if self.config.optim.ema > 0:
            callbacks.append(EMAWeightAveraging(decay=self.config.optim.ema))
        callbacks += [LearningRateMonitor("step"), PlainLines(best)]
        if sys.stdout.isatty():
            callbacks.append(Bar(leave=False))
        callbacks.append(LastCheckpoint(self.folder / run_folder.CHECKPOINT))
        return pl.Trainer(
            accelerator="gpu" if cuda else "cpu",
            devices=train.devices,
            strategy=strategy,
            precision=precision,  # type: ignore[arg-type]
            plugins=[AtomicCheckpointIO()],
            logger=self._loggers(),
            callbacks=callbacks,
            max_epochs=train.epochs,
            max_steps=-1 if train.max_steps is None else train.max_steps,
            check_val_every_n_epoch=train.eval_every,
            num_sanity_val_steps=0,
            log_every_n_steps=train.log_every,
            accumulate_grad_batches=train.accumulate,
            gradient_clip_val=self.config.optim.clip_norm or None,
            # some CUDA kernels have no deterministic form (resizing position embeddings): warn
            deterministic=("warn" if cuda else True) if train.deterministic else False,
            inference_mode=False,  # weight averages are swapped in and out during validation
            # batch norm of the segmentation heads; only GPUs have the synchronized form
            sync_batchnorm=cuda and train.devices > 1,
            use_distributed_sampler=False,  # our sampler splits batches itself
            enable_progress_bar=sys.stdout.isatty(),
            enable_model_summary=False,
            default_root_dir=self.folder,
        )

    def _loggers(self) -> list[Logger]:
        """CSV always; every start of a run has its own ``version_N`` in both."""
        loggers: list[Logger] = [CSVLogger(self.folder, name="logs")]
        if not self.config.train.tensorboard:
            return loggers
        if importlib.util.find_spec("tensorboard") is not None:
            return [*loggers, TensorBoardLogger(self.folder, name="tensorboard")]
        if self.main:
            print("warning: no TensorBoard log: pip install tensorboard or train.tensorboard=false")
        return loggers

    @contextmanager
    def _interruptible(self, trainer: pl.Trainer) -> Iterator[None]:
        """Turn Lightning's exit after Ctrl-C into a KeyboardInterrupt, and print how to resume."""
        handler = signal.getsignal(signal.SIGINT)
        try:
            yield
        except (KeyboardInterrupt, SystemExit) as stop:
            if not (isinstance(stop, KeyboardInterrupt) or trainer.interrupted):
                raise
            signal.signal(signal.SIGINT, handler)
            saved = (self.folder / run_folder.CHECKPOINT).exists()
            state = "the end of the last epoch" if saved else "its start"
            if self.main:
                print(f"\nstopped; resume=true continues the run from {state}", flush=True)
            raise KeyboardInterrupt from stop


@contextmanager
def start_run(config: Config, unsupported: Sequence[tuple[str, str]] = ()) -> Iterator[Run]:
    """Check and seed a run; writes nothing yet.

    ``unsupported`` holds further problems of the config, as (key, problem).

    Raises:
        ArtifactNetError: the config cannot be trained, the folder is taken, a device is missing;
            inside the block also: the disk is full.
    """
    for key, problem in (*problems(config), *unsupported):
        raise ConfigError(f"{key} {problem}")
    main = is_main_process()
    folder = Path(config.out) / config.name
    if main:
        run_folder.check_run_folder(config)
    with run_folder.explain_full_disk(folder), _global_state():
        pl.seed_everything(config.seed, workers=True, verbose=False)
        device = choose_device(config.train.device, config.train.devices)
        if config.train.precision == "16" and device == "cpu":
            raise ArtifactNetError("train.precision=16 needs a GPU; use bf16, 32 or auto")
        yield Run(config, folder, device, main)


class _Loaders(pl.LightningDataModule):
    """The run's loaders, split by process once Lightning knows how many there are."""

    def __init__(self, data: RunData) -> None:
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


@contextmanager
def _global_state() -> Iterator[None]:
    """Quiet Lightning; restore process-wide switches of torch at the end."""
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
            # components are intended, logged values are reduced by `TrainingModule`), and
            # Lightning's use of an outdated torch function
            for text in (
                ".*does not have many workers",
                ".*smaller than the logging interval",
                ".*in eval mode at the start of training",
                ".*isinstance.treespec, LeafSpec",
                "It is recommended to use `self.log",
            ):
                warnings.filterwarnings("ignore", text)
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        settings.fill_uninitialized_memory = fill
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _banner(notices: Sequence[str]) -> list[str]:
    """Notices between lines that nobody overlooks."""
    if not notices:
        return []
    bar = "!" * 78
    return [bar, *(f"!! WARNING: {notice}" for notice in notices), bar]
