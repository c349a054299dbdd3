"""How much memory a device has left."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch


class _Container(NamedTuple):
    """Where a container's memory is told."""

    limit: Path
    used: Path
    statistics: Path
    cache: str  # in the statistics: file cache that the system drops before memory runs out


_SYSTEM = Path("/proc/meminfo")
_GROUPS = Path("/sys/fs/cgroup")
_CONTAINERS = (  # the second and the first kind of cgroup
    _Container(
        _GROUPS / "memory.max",
        _GROUPS / "memory.current",
        _GROUPS / "memory.stat",
        "inactive_file",
    ),
    _Container(
        _GROUPS / "memory/memory.limit_in_bytes",
        _GROUPS / "memory/memory.usage_in_bytes",
        _GROUPS / "memory/memory.stat",
        "total_inactive_file",
    ),
)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be had on a device without harm to others.

    Args:
        device: a GPU: what it has left, and what PyTorch holds there and does not use. Otherwise
            the smaller of what the system calls available and what is left of a container's
            limit, whose use does not count file cache that can be dropped.

    Returns:
        The number, at least 0; None where the system does not tell.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    found = [_of_system(), *(_of_container(container) for container in _CONTAINERS)]
    known = [free for free in found if free is not None]
    return max(0, min(known)) if known else None


def _of_system() -> int | None:
    try:
        lines = _SYSTEM.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _of_container(container: _Container) -> int | None:
    try:
        limit = int(container.limit.read_text(encoding="utf-8"))
        used = int(container.used.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no such container, or its limit is "max"
        return None
    try:
        lines = container.statistics.read_text(encoding="utf-8").splitlines()
    except OSError:  # then all of the use counts
        lines = []
    found = [line.split()[1] for line in lines if line.startswith(f"{container.cache} ")]
    return limit - used + (int(found[0]) if found else 0)
