"""Which device a run uses, and which of its processes speaks."""

from __future__ import annotations

import os

import torch

from artifactnet.types import ArtifactNetError


def choose_device(device: str, count: int = 1) -> str:
    """``cuda`` or ``cpu``.

    Args:
        device: ``auto``, ``cpu`` or ``gpu``.
        count: how many are needed.

    Raises:
        ArtifactNetError: more GPUs were asked for than there are.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and not there):
        return "cpu"
    if there < count:
        raise ArtifactNetError(
            f"train.device={device} train.devices={count}, but {there} GPUs can be used; "
            "set train.device=cpu or fewer devices"
        )
    return "cuda"


def own_device(device: str) -> str:
    """The GPU that belongs to this process of a distributed run; any other device as it is.

    Args:
        device: ``cuda`` or ``cpu``.
    """
    rank = os.environ.get("LOCAL_RANK")  # set by whatever starts the helper processes
    return f"cuda:{rank}" if device == "cuda" and rank is not None else device


def is_main_process() -> bool:
    """False in the helper processes of a distributed run, which write and print nothing."""
    from lightning.pytorch.utilities import rank_zero_only  # takes seconds, of every report too

    return getattr(rank_zero_only, "rank", 0) == 0
