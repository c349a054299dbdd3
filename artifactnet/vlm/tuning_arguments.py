"""A run's configuration as the training arguments of transformers, for every stage."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch

from artifactnet.config import Config, OptimConfig
from artifactnet.training.optim import group_parameters
from artifactnet.training.run import Run
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.base import WHOLE

CHECKPOINTS = "checkpoints"  # in the folder of a run
_SCHEDULES = {
    "cosine": "cosine_with_min_lr",
    "linear": "linear",
    "constant": "constant_with_warmup",
}


def require_training_extra() -> None:
    """Fail early, with the command that installs what is missing.

    Raises:
        ArtifactNetError: the extra ``mllm-train`` is not installed.
    """
    missing = [name for name in ("trl", "datasets") if importlib.util.find_spec(name) is None]
    if missing:
        raise ArtifactNetError(
            f"fine-tuning a language model needs {', '.join(missing)}: "
            "pip install 'artifactnet[mllm-train]'"
        )


def common_arguments(run: Run) -> dict[str, Any]:
    """Arguments of `transformers.TrainingArguments` for every stage."""
    config, cuda = run.config, run.device == "cuda"
    train, optim = config.train, config.optim
    precision = train.precision
    if precision == "auto":
        precision = "bf16" if cuda and torch.cuda.is_bf16_supported() else "32"
    schedule = {"min_lr_rate": optim.min_lr_ratio} if optim.schedule == "cosine" else {}
    return {
        "output_dir": str(run.folder / CHECKPOINTS),
        "seed": config.seed,
        "data_seed": config.seed,
        "use_cpu": not cuda,
        "ddp_backend": "gloo" if not cuda and int(os.environ.get("WORLD_SIZE", 1)) > 1 else None,
        "bf16": precision == "bf16",
        "fp16": precision == "16",
        "deepspeed": _deepspeed(config),
        "per_device_train_batch_size": config.data.batch_size,
        "gradient_accumulation_steps": train.accumulate,
        "activation_checkpointing": config.mllm.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "dataloader_num_workers": config.data.workers,
        "remove_unused_columns": False,
        "num_train_epochs": train.epochs,
        "max_steps": -1 if train.max_steps is None else train.max_steps,
        "learning_rate": optim.lr,
        "weight_decay": optim.weight_decay,
        "adam_beta1": optim.betas[0],
        "adam_beta2": optim.betas[1],
        "max_grad_norm": optim.clip_norm,
        "warmup_steps": optim.warmup,  # below 1: a share of all steps
        "lr_scheduler_type": _SCHEDULES[optim.schedule],
        "lr_scheduler_kwargs": schedule,
        "logging_steps": train.log_every,
        "report_to": [],  # see `tuning_callbacks`
        "disable_tqdm": True,
        "save_strategy": "steps",
        "save_steps": config.mllm.save_every,
        "save_total_limit": 2,  # the older one is whole while the newer is written
    }


def projector_optimizer(model: Any, optim: OptimConfig) -> torch.optim.Optimizer | None:
    """AdamW in which a projector that learns beside adapters does so at ``head_lr``.

    Like transformers' own, it lets no bias or norm decay.

    Args:
        model: the base with adapters; what requires no gradient is left out.
        optim: ``lr``, ``head_lr``, ``weight_decay`` and ``betas`` are used.

    Returns:
        None without ``head_lr``: transformers makes its own.
    """
    head_lr = optim.head_lr
    if head_lr is None:
        return None

    def settings(name: str, parameter: torch.nn.Parameter) -> tuple[float, float]:
        decay = 0.0 if parameter.ndim <= 1 else optim.weight_decay
        return head_lr if WHOLE in name else optim.lr, decay

    groups = group_parameters(model, settings)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.betas[0], optim.betas[1]))


def _deepspeed(config: Config) -> dict[str, Any] | None:
    if not config.train.strategy.startswith("deepspeed"):
        return None
    return {
        "zero_optimization": {"stage": int(config.train.strategy[-1])},
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }
