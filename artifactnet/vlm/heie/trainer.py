"""Training of a HEIE on a language model: build, train, evaluate, save."""

from __future__ import annotations

import gc
from importlib.util import find_spec

import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy, Strategy

from artifactnet.config import Config
from artifactnet.runs.device import own_device
from artifactnet.runs.run_folder import RunResult
from artifactnet.training.checkpoints import BestModel
from artifactnet.training.components import DDP_FIND_UNUSED, ddp_strategy
from artifactnet.training.run import Run, start_run
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.base import require_mllm_extra
from artifactnet.vlm.heie import evaluate as tables
from artifactnet.vlm.heie.data import TextData
from artifactnet.vlm.heie.evaluate import evaluate_model, usual_text
from artifactnet.vlm.heie.model import build_heie
from artifactnet.vlm.heie.module import HeieModule
from artifactnet.vlm.heie.processing import load_heie_processing
from artifactnet.vlm.heie.saving import FACTS, load_heie


def train_heie(config: Config) -> RunResult:
    """Train, evaluate and save a HEIE, by a config with ``mllm.base``.

    Raises:
        ArtifactNetError: any user error; what was saved before stays loadable.
        KeyboardInterrupt: Ctrl-C; how to resume has been printed.
    """
    with start_run(config, _unsupported(config)) as run:
        require_mllm_extra()
        training, data = _train(run)
        if not run.main:
            return RunResult(run.folder, {})
        # only one base model fits: the trained one is gone before the best one is loaded
        gc.collect()
        if run.device == "cuda":
            torch.cuda.empty_cache()
        model, folder = load_heie(run.folder, run.device, merge=True), run.folder
        results = evaluate_model(model, data, config, usual_text(config.mllm), folder, folder)
        results["training"] = training
        tables.write(folder, results)
        saved = f"{folder / FACTS} and the files next to it"
        usage = [f"artifactnet predict photo.jpg --model {folder}"]
        return run.finish(results, tables.terminal(results), saved, usage)


def _train(run: Run) -> tuple[dict[str, object], TextData]:
    """Facts about the training, and its data; the best model is in the run's folder."""
    config = run.config
    strategy = lightning_strategy(config, run.device)
    data = TextData(config, load_heie_processing(config.mllm, config.model.heatmap))
    data.train_loader(), data.val_loader()  # report missing data before loading gigabytes
    model = build_heie(config, own_device(run.device))
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    heatmap = config.model.heatmap
    run.open_folder(
        data,
        f"HEIE on {config.mllm.base}, {learning:,} of {everything:,} parameters learn, up to "
        f"{heatmap.max_tiles} tiles of {heatmap.tile}x{heatmap.tile}",
    )
    module = HeieModule(model, config).train()
    best = BestModel(run.folder / FACTS, "loss", {"run": config.name})
    return run.fit(module, data, best, strategy), data


def _unsupported(config: Config) -> list[tuple[str, str]]:
    """Keys of other models that HEIE does not have, as (key, what it must be)."""
    found = []
    if config.mllm.base is None:
        found.append(("mllm.base", "must name the language model"))
    if config.optim.ema:
        found.append(("optim.ema", "must be 0 with mllm.base: an average is a second base model"))
    if config.freeze:
        found.append(("freeze", "must be empty with mllm.base: mllm.lora_rank says what learns"))
    if config.init_from is not None:
        found.append(("init_from", "must be null with mllm.base; resume=true continues a run"))
    shards = config.train.strategy not in ("auto", "ddp")
    if config.mllm.quantize != "none" and shards:
        found.append(("train.strategy", "must be auto or ddp if mllm.quantize is not none"))
    if config.mllm.tune == "projector" and config.train.strategy == "fsdp":
        whole = "the whole base is saved, of which fsdp gathers only what learns"
        found.append(("train.strategy", f"must not be fsdp with mllm.tune=projector: {whole}"))
    if config.data.on_error == "skip" and config.train.strategy == "fsdp":
        waits = "processes would wait for the one whose batch is skipped"
        found.append(("data.on_error", f"must be raise with train.strategy=fsdp: {waits}"))
    return found


def lightning_strategy(config: Config, device: str) -> str | Strategy:
    """Lightning's strategy for a run on a device, ``cuda`` or ``cpu``.

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
        # frozen weights are read from the base model again, see `HeieModule`
        return DeepSpeedStrategy(stage=int(name[-1]), exclude_frozen_parameters=True)
    if name == "ddp" or config.train.devices > 1:
        # rows of the output layer have no gradient if no text is learned
        return ddp_strategy(config) if config.loss.text else DDP_FIND_UNUSED
    return "auto"
