"""Fine-tuning of a language model from its checks to its last step: all tasks but HEIE's.

A task's trainer opens a run (`tuning_run`), makes its rows, and lets `fit_tuned` train on them.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from artifactnet.config import Config, ConfigError
from artifactnet.files import write_json, write_text
from artifactnet.rules import problems
from artifactnet.runs.device import choose_device
from artifactnet.runs.run_folder import RunResult
from artifactnet.training.run import Run, RunSplits, start_run
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.base import require_mllm_extra
from artifactnet.vlm.tuning_arguments import require_training_extra

# those that PyTorch's launcher handles itself; Windows lacks the last two
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
    if hasattr(signal, name)
]


def train_in_processes(config: Config, train: Callable[[Config], RunResult]) -> RunResult | None:
    """Start ``train`` once for each of ``train.devices``; None where this process shall train.

    That is with one device, and in the processes of a launcher (torchrun, accelerate, this one).

    Raises:
        ArtifactNetError: the config cannot be trained, a device is missing, or a user error of one
            of the processes.
        KeyboardInterrupt: Ctrl-C.
    """
    if config.train.devices > 1 and "RANK" not in os.environ:
        return _launch(config, train)
    return None


def write_benchmark_results(
    run: Run,
    split: str,
    training: dict[str, Any],
    benchmark: dict[str, Any] | None,
    images: int,
    notices: list[str],
    page: str,
) -> dict[str, Any]:
    """Write ``results.json`` and ``.md`` of a run that a benchmark judges; returns the former.

    Args:
        run: the run.
        split: that was judged.
        training: facts about the training.
        benchmark: what the benchmark found; None: it asks no such model by itself.
        images: of the split.
        notices: what must be known before trusting the model.
        page: ``results.md``.
    """
    config = run.config
    results = {
        "run": config.name,
        "data": {"name": config.data.name, "root": config.data.root, "split": split},
        "images": images,
        "model": {"base": config.mllm.base, "epoch": training["epochs"]},
        "notices": notices,
        "training": training,
        "benchmark": benchmark,
    }
    write_json(run.folder / "results.json", results)
    write_text(run.folder / "results.md", page)
    return results


@contextmanager
def tuning_run(config: Config) -> Iterator[Run]:
    """Check and seed a run, and fail early where a package is missing.

    Raises:
        ArtifactNetError: see `start_run`; or an extra is not installed.
    """
    with start_run(config, _unsupported(config)) as run:
        # peft and TRL still use the old name
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.*is deprecated")
        require_mllm_extra()
        require_training_extra()
        yield run


def fit_tuned(
    run: Run,
    model: Any,
    data: RunSplits,
    title: str,
    examples: tuple[int, str],
    train: Callable[[Path | None], dict[str, Any]],
) -> dict[str, Any]:
    """Open the run's folder and train, from the newest whole checkpoint if the run resumes.

    Args:
        run: the run.
        model: whose parameters learn.
        data: its counts and warnings.
        title: what is trained, for people.
        examples: how many there are, and their name: ``images`` or ``questions``.
        train: trains from a checkpoint (None: from the start); returns its facts.

    Returns:
        Facts about the training, for ``results.json``.

    Raises:
        KeyboardInterrupt: Ctrl-C; how to resume has been printed.
    """
    from artifactnet.vlm.tuning_callbacks import newest_checkpoint

    parameters = list(model.parameters())
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    total = sum(p.numel() for p in parameters)
    count, name = examples
    run.open_folder(
        data, f"{title}, {learning:,} of {total:,} parameters learn, {count} training {name}"
    )
    checkpoint = newest_checkpoint(run.folder) if run.main and run.config.resume else None
    checkpoint = _same_everywhere(checkpoint)
    if run.config.resume and run.main:
        start = "the start" if checkpoint is None else checkpoint.name.replace("-", " of step ")
        print(f"resume: from {start}", flush=True)
    started = time.perf_counter()
    try:
        facts = train(checkpoint)
    except KeyboardInterrupt:
        if run.main:
            print("\nstopped; resume=true continues the run from its last checkpoint", flush=True)
        raise
    return facts | {
        "seconds": round(time.perf_counter() - started, 1),
        "parameters": {"trained": learning, "total": total},
        name: count,
    }


def free_memory(run: Run) -> None:
    """Make room for the saved model once the trained one is gone: only one base model fits."""
    gc.collect()
    if run.device == "cuda":
        torch.cuda.empty_cache()


def _same_everywhere(path: Path | None) -> Path | None:
    """What the main process found, in every process of a distributed run."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return path
    if not torch.distributed.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend)
    holder = [path]
    torch.distributed.broadcast_object_list(holder)
    return holder[0]


def _launch(config: Config, train: Callable[[Config], RunResult]) -> RunResult:
    """Start a process for each device on this machine, and train in all of them.

    Raises:
        ArtifactNetError: the config cannot be trained, a device is missing, or a user error of one
            of the processes.
        KeyboardInterrupt: Ctrl-C.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for key, problem in (*problems(config), *_unsupported(config)):
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


def _unsupported(config: Config) -> list[tuple[str, str]]:
    """Keys of other models that these do not have, as (key, what it must be)."""
    found = []
    if config.init_from is not None:
        found.append(("init_from", "must be null; mllm.adapters names adapters to train further"))
    if config.freeze or config.freeze_blocks:
        found.append(("freeze", "must be empty with mllm.base: mllm.lora_rank says what learns"))
    if config.optim.ema:
        found.append(("optim.ema", "must be 0 with mllm.base"))
    if config.optim.layer_decay != 1:
        found.append(("optim.layer_decay", "must be 1 with mllm.base"))
    if config.optim.head_lr is not None and config.mllm.tune != "language_projector":
        found.append(("optim.head_lr", "is for mllm.tune=language_projector: adapters have lr"))
    if config.optim.head_lr is not None and config.train.strategy.startswith("deepspeed"):
        found.append(("optim.head_lr", "must be null with DeepSpeed, which makes the optimizer"))
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
