"""Training of a FakeXplainer: checks, one of two stages, evaluation, saving."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from artifactnet.config import Config, ConfigError
from artifactnet.rules import problems
from artifactnet.runs.device import choose_device, own_device
from artifactnet.runs.run_folder import RunResult
from artifactnet.training.run import Run, start_run
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.base import require_mllm_extra
from artifactnet.vlm.fakexplainer.arguments import require_training_extra
from artifactnet.vlm.fakexplainer.evaluate import evaluate_model, read_run_groups
from artifactnet.vlm.fakexplainer.pages import terminal, write
from artifactnet.vlm.fakexplainer.processing import load_fakexplainer_processing
from artifactnet.vlm.fakexplainer.rows import Row, TaskData
from artifactnet.vlm.fakexplainer.saving import (
    FACTS,
    build_fakexplainer,
    check_adapters,
    load_fakexplainer,
    save_fakexplainer,
)

# those that PyTorch's launcher handles itself; Windows lacks the last two
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
    if hasattr(signal, name)
]


def train_fakexplainer(config: Config) -> RunResult:
    """Train, evaluate and save a FakeXplainer, by a config with ``mllm.task=fakexplainer``.

    With ``train.devices`` above 1, that many processes are started, unless a launcher (torchrun,
    accelerate) has started them.

    Raises:
        ArtifactNetError: any user error; what was saved before stays loadable.
        KeyboardInterrupt: Ctrl-C; how to resume has been printed.
    """
    if config.train.devices > 1 and "RANK" not in os.environ:
        return launch(config, train_fakexplainer)
    with start_run(config, unsupported(config)) as run:
        # peft and TRL still use the old name
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.*is deprecated")
        require_mllm_extra()
        require_training_extra()
        training, data = _train(run)
        if not run.main:
            return RunResult(run.folder, {})
        gc.collect()  # only one base model fits
        if run.device == "cuda":
            torch.cuda.empty_cache()
        model = load_fakexplainer(run.folder, own_device(run.device))
        results = evaluate_model(model, data, config, run.folder)
        results["training"] = training
        write(run.folder, results)
        saved = f"{run.folder / FACTS} and the files next to it"
        usage = [f"artifactnet predict photo.jpg --model {run.folder}"]
        if config.mllm.stage == "sft":
            usage.append(f"artifactnet train paper/fakexplainer_grpo mllm.adapters={run.folder}")
        return run.finish(results, terminal(results), saved, usage)


def _train(run: Run) -> tuple[dict[str, Any], TaskData]:
    """Facts about the training, and its data; the trained model is in the run's folder."""
    from artifactnet.vlm.fakexplainer.callbacks import newest_checkpoint

    config, adapters = run.config, run.config.mllm.adapters
    # what could else fail after every image is opened, or the base, of gigabytes, is loaded
    read_run_groups(config)
    if adapters is not None:
        check_adapters(Path(adapters), config.mllm)
    data = TaskData(config)
    processing = load_fakexplainer_processing(config.mllm)
    rows = data.rows("train", processing)
    wanted = config.mllm.stage == "sft" and "val" in data.splits
    val_rows = data.rows("val", processing) if wanted and data.splits["val"].records else []
    trained = build_fakexplainer(config.mllm, own_device(run.device), adapters)
    parameters = list(trained.model.parameters())
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    run.open_folder(
        data,
        f"FakeXplainer ({config.mllm.stage}) on {config.mllm.base}, {learning:,} of "
        f"{sum(p.numel() for p in parameters):,} parameters learn, {len(rows)} training images",
    )
    checkpoint = newest_checkpoint(run.folder) if run.main and config.resume else None
    checkpoint = same_everywhere(checkpoint)
    if config.resume and run.main:
        start = "the start" if checkpoint is None else checkpoint.name.replace("-", " of step ")
        print(f"resume: from {start}", flush=True)
    started = time.perf_counter()
    try:
        facts = _fit(run, trained, data, rows, val_rows, checkpoint)
    except KeyboardInterrupt:
        if run.main:
            print("\nstopped; resume=true continues the run from its last checkpoint", flush=True)
        raise
    facts |= {
        "seconds": round(time.perf_counter() - started, 1),
        "parameters": {"trained": learning, "total": sum(p.numel() for p in parameters)},
        "images": len(rows),
    }
    if run.main:
        extra = {"run": config.name, "epoch": facts["epochs"], "step": facts["steps"]}
        save_fakexplainer(trained, run.folder, {**extra, "notices": []})
    return facts, data


def _fit(
    run: Run,
    trained: Any,
    data: TaskData,
    rows: list[Row],
    val_rows: list[Row],
    checkpoint: Path | None,
) -> dict[str, Any]:
    if run.config.mllm.stage == "sft":
        from artifactnet.vlm.fakexplainer.sft import train_sft

        return train_sft(run, trained, data, rows, val_rows, checkpoint)
    from artifactnet.vlm.fakexplainer.grpo import train_grpo

    return train_grpo(run, trained, data, rows, checkpoint)


def same_everywhere(path: Path | None) -> Path | None:
    """What the main process found, in every process of a distributed run."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return path
    if not torch.distributed.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend)
    holder = [path]
    torch.distributed.broadcast_object_list(holder)
    return holder[0]


def launch(config: Config, train: Callable[[Config], RunResult]) -> RunResult:
    """Start a process for each device on this machine, and train in all of them.

    Raises:
        ArtifactNetError: the config cannot be trained, a device is missing, or a user error of one
            of the processes.
        KeyboardInterrupt: Ctrl-C.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for key, problem in (*problems(config), *unsupported(config)):
        raise ConfigError(f"{key} {problem}")
    choose_device(config.train.device, config.train.devices)
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=config.train.devices,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        run_id=config.name,
        start_method="spawn",
    )
    # PyTorch's launcher leaves handlers of its own behind
    handlers = {name: signal.getsignal(name) for name in _SIGNALS} if _in_main_thread() else {}
    stopped = None
    try:
        results: dict[int, RunResult] = elastic_launch(settings, train)(config)
    except SignalException as error:
        stopped = error.sigval
    except ChildFailedError as error:
        # what its process wrote down: KIND: MESSAGE, or something else if it was killed
        told = error.get_first_failure()[1].error_file_data["message"]
        told = told["message"] if isinstance(told, dict) else str(told)
        kind, _, message = told.partition(": ")
        if kind not in (ArtifactNetError.__name__, ConfigError.__name__):
            raise
        raise ArtifactNetError(message) from None
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
    if stopped is not None:
        signal.raise_signal(stopped)  # now it does what it does in a run of one process
        raise KeyboardInterrupt  # its handler let the program go on
    return results[0]


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def unsupported(config: Config) -> list[tuple[str, str]]:
    """Keys of other models that FakeXplainer does not have, as (key, what it must be)."""
    found = []
    if config.init_from is not None:
        found.append(("init_from", "must be null; mllm.adapters names adapters to train further"))
    if config.freeze or config.freeze_blocks:
        found.append(("freeze", "must be empty with mllm.base: mllm.lora_rank says what learns"))
    if config.optim.ema:
        found.append(("optim.ema", "must be 0 with mllm.base"))
    if config.optim.layer_decay != 1 or config.optim.head_lr is not None:
        found.append(("optim.layer_decay", "must be 1, and optim.head_lr null: adapters share lr"))
    if config.optim.schedule != "cosine" and config.optim.min_lr_ratio not in (0, 0.01):
        found.append(("optim.min_lr_ratio", "is of optim.schedule=cosine"))
    if config.data.pairs:
        found.append(("data.pairs", "must be false with this mllm.task"))
    if config.mllm.quantize != "none" and config.train.strategy not in ("auto", "ddp"):
        found.append(("train.strategy", "must be auto or ddp if mllm.quantize is not none"))
    if config.train.strategy == "fsdp":
        found.append(("train.strategy", "must be auto, ddp or deepspeed_stage_N: TRL samples"))
    if config.train.strategy.startswith("deepspeed") and find_spec("deepspeed") is None:
        found.append(("train.strategy", "needs: pip install 'deepspeed>=0.18.6'"))
    if config.mllm.grpo.vllm != "none" and find_spec("vllm") is None:
        found.append(("mllm.grpo.vllm", "needs vLLM (pip install 'trl[vllm]'), or set it to none"))
    return found
