"""The device that a name means, for inference."""

from __future__ import annotations

import torch

from artifactnet.types import ArtifactNetError


def pick_device(name: str | torch.device) -> torch.device:
    """The device of a name, for inference.

    Args:
        name: ``auto`` (CUDA if available, then MPS, then the CPU), ``gpu`` (CUDA, then MPS),
            ``cpu``, ``mps``, ``cuda``, ``cuda:1``, ...

    Raises:
        ArtifactNetError: this machine has no such device.
    """
    if name in ("auto", "gpu"):
        mps = not torch.cuda.is_available() and torch.backends.mps.is_available()
        if name == "auto" and not (mps or torch.cuda.is_available()):
            return torch.device("cpu")
        name = "mps" if mps else "cuda"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).splitlines()[0]
        raise ArtifactNetError(f"device {name!s} cannot be used: {reason}") from error
    return device
