"""Training of a HEIE from its config to its results."""

from __future__ import annotations

import gc
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy, Strategy

from artifactnet import files
from artifactnet.config import Config, ConfigError, problems
from artifactnet.evaluation import results
from artifactnet.runs import run_folder
from artifactnet.runs.device import choose_device, is_main_process, own_device
from artifactnet.training.checkpoints import BestModel
from artifactnet.training.components import LOOKING, UNSCORED, ddp_strategy
from artifactnet.training.fit import fit_module, global_state
from artifactnet.training.trainer import RunResult
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.base import load_processor, need_extra
from artifactnet.vlm.heie import evaluate as tables
from artifactnet.vlm.heie.data import TextData
from artifactnet.vlm.heie.evaluate import evaluate_model
from artifactnet.vlm.heie.model import HEIE, build
from artifactnet.vlm.heie.module import HeieModule
from artifactnet.vlm.heie.predictor import usual_text
from artifactnet.vlm.heie.saving import FACTS, load, save
from artifactnet.vlm.processing import Processing
from artifactnet.vlm.sharding import whole

_NO_TEXT = "the text is UNTRAINED (loss.text=0): it is the base model's own, do not rely on it"


def train(config: Config) -> RunResult:
    """Train, evaluate and save a HEIE.

    Args:
        config: the run, with ``mllm.base``; see `artifactnet.config.load`.

    Returns:
        Folder and results of the run.

    Raises:
        ArtifactNetError: anything the user can mend; what was saved before stays loadable.
        KeyboardInterrupt: Ctrl-C; how to go on has been printed.
    """
    for key, problem in (*problems(config), *_not_to_be_had(config)):
        raise ConfigError(f"{key} {problem}")
    need_extra()
    main = is_main_process()
    folder = Path(config.out) / config.name
    if main:
        run_folder.check(config)
    with run_folder.explain_full_disk(folder), global_state():
        return _run(config, folder, main)


def _not_to_be_had(config: Config) -> list[tuple[str, str]]:
    """Keys that other models have and HEIE has not, as (key, what it must be)."""
    found = []
    if config.optim.ema:
        found.append(("optim.ema", "must be 0 with mllm.base: an average is a second base model"))
    if config.freeze:
        found.append(("freeze", "must be empty with mllm.base: mllm.lora_rank says what learns"))
    if config.init_from is not None:
        found.append(("init_from", "must be null with mllm.base; resume=true goes on with a run"))
    divides = config.train.strategy not in ("auto", "ddp")
    if config.mllm.quantize != "none" and divides:
        found.append(("train.strategy", "must be auto or ddp where mllm.quantize is not none"))
    if config.data.on_error == "skip" and config.train.strategy == "fsdp":
        waits = "processes would wait for the one whose batch is skipped"
        found.append(("data.on_error", f"must be raise with train.strategy=fsdp: {waits}"))
    return found


def strategy_of(config: Config, device: str) -> str | Strategy:
    """Lightning's strategy for a run.

    Args:
        config: the run.
        device: ``cuda`` or ``cpu``.

    Raises:
        ArtifactNetError: DeepSpeed without a GPU or its package.
    """
    name = config.train.strategy
    if name == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=config.train.devices,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,  # one file, as every run has it
        )
    if name.startswith("deepspeed"):
        if device == "cpu":
            raise ArtifactNetError(f"train.strategy={name} needs GPUs; fsdp runs on CPUs too")
        if find_spec("deepspeed") is None:
            raise ArtifactNetError(f"train.strategy={name} needs: pip install 'deepspeed>=0.18.6'")
        # frozen weights are read again from where they came from, see `HeieModule`
        return DeepSpeedStrategy(stage=int(name[-1]), exclude_frozen_parameters=True)
    if name == "ddp" or config.train.devices > 1:
        # rows of the output layer have no gradient where no text is learned
        return ddp_strategy(config) if config.loss.text else LOOKING
    return "auto"


def _run(config: Config, folder: Path, main: bool) -> RunResult:
    """`train` after its checks; helper processes of a distributed run write nothing."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    device = choose_device(config.train.device, config.train.devices)
    if config.train.precision == "16" and device == "cpu":
        raise ArtifactNetError("train.precision=16 needs a GPU; use bf16, 32 or auto")
    strategy = strategy_of(config, device)
    processor = load_processor(config.mllm)
    limits = config.model.heatmap.max_tiles, config.mllm.question
    data = TextData(config, Processing(processor, *limits))
    data.train_loader(), data.val_loader()  # say what is missing before gigabytes are loaded
    model = build(config, own_device(device))
    if main:
        run_folder.prepare(config)
        files.write_json(folder / run_folder.DATA, data.summary)
        print(_opening(folder, config, model, data), flush=True)
    module = HeieModule(model, config).train()
    best = BestModel(folder / FACTS, "loss", {"run": config.name}, save_best)
    trainer, seconds = fit_module(module, config, data, best, folder, device, strategy)
    if not main:
        return RunResult(folder, {})
    progress = {"epochs": trainer.current_epoch, "steps": trainer.global_step}
    learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
    training = {
        **progress,
        "seconds": round(seconds, 1),
        "parameters": learnt,
        "best_epoch": best.epoch,
        "best_validation": best.best,
    }
    del trainer, module, model  # the best one is loaded beside it
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return _finish(config, folder, data, training, device)


def _finish(
    config: Config, folder: Path, data: TextData, training: dict[str, Any], device: str
) -> RunResult:
    """Judge the best model, write everything down, tell."""
    text = usual_text(config.mllm)
    found = evaluate_model(load(folder, device), data, config, text, folder, folder)
    found["training"] = training
    tables.write(folder, found)
    run_folder.finish(folder, {key: training[key] for key in ("epochs", "steps")})
    print(_closing(folder, found), flush=True)
    return RunResult(folder, found)


def save_best(module: pl.LightningModule, path: Path, facts: dict[str, Any]) -> None:
    """Write the model of a module into a folder; all processes gather, the first one writes.

    Args:
        module: a `HeieModule` under training.
        path: of ``heie.json``.
        facts: of the training.
    """
    assert isinstance(module, HeieModule)
    notices = [] if module.scored else [UNSCORED]
    if not module.config.loss.text:
        notices.append(_NO_TEXT)
    first = module.trainer.is_global_zero
    with whole(module.model, first):
        if first:
            save(module.model, path.parent, {**facts, "notices": notices})


def _opening(folder: Path, config: Config, model: HEIE, data: TextData) -> str:
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    counts = ", ".join(f"{name} {len(split.records)}" for name, split in data.splits.items())
    heatmap = config.model.heatmap
    return "\n".join(
        [
            f"run {folder}: HEIE on {config.mllm.base}, {learning:,} of {everything:,} parameters "
            f"learn, up to {heatmap.max_tiles} tiles of {heatmap.tile}x{heatmap.tile}",
            f"data {config.data.name}: {counts} images",
            *(f"warning: {warning}" for warning in data.summary["warnings"]),
        ]
    )


def _closing(folder: Path, found: dict[str, Any]) -> str:
    return "\n".join(
        [
            "",
            f"results on the {found['data']['split']} split ({found['images']} images), model of "
            f"epoch {found['model']['epoch']} of {found['training']['epochs']}:",
            tables.terminal(found),
            "",
            f"model      {folder / FACTS} and what is beside it",
            f"results    {folder / results.MARKDOWN}, {folder / results.JSON}",
            f"logs       {folder / 'logs'}",
            "",
            "use it:",
            f"    artifactnet predict photo.jpg --model {folder}",
        ]
    )
