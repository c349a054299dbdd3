"""Which device a run uses, and which of its processes writes and prints."""

from __future__ import annotations

import os

import torch

from artifactnet.types import ArtifactNetError

# set by torchrun, by Lightning for the processes that it starts, by SLURM and by jsrun
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def choose_device(device: str, count: int = 1) -> str:
    """``cuda`` or ``cpu`` for ``auto``, ``cpu`` or ``gpu``.

    Raises:
        ArtifactNetError: fewer than ``count`` GPUs are available, and CPU was not chosen.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and not available):
        return "cpu"
    if available < count:
        raise ArtifactNetError(
            f"train.device={device} train.devices={count}, but {available} GPUs are available; "
            "set train.device=cpu or fewer devices"
        )
    return "cuda"


def own_device(device: str) -> str:
    """The GPU of this process in a distributed run (of ``cuda``); any other device as it is."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if device == "cuda" and rank is not None else device


def process_rank() -> int:
    """Rank of this process in a distributed run, also before its process group exists; else 0."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    return next((int(os.environ[name]) for name in _RANK_VARIABLES if name in os.environ), 0)


def is_main_process() -> bool:
    """False in the other processes of a distributed run, which write and print nothing."""
    return process_rank() == 0
