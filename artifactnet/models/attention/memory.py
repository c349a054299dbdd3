"""Whether what a rollout keeps fits into memory: known before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from artifactnet.config import AttentionConfig
from artifactnet.models.attention.tiles import Tiles


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


_FLOAT_BYTES = 4


def cannot_hold(
    options: AttentionConfig, blocks: nn.ModuleList, images: Tensor, tokens: int
) -> str | None:
    """Why the matrices that training keeps, or a tile, cannot fit into memory.

    Args:
        options: how the map is made.
        blocks: the transformer's blocks.
        images: a batch.
        tokens: of each of its images, prefix tokens included.

    Returns:
        one line that names the blocks, what is missing and what helps; None where all fits.
    """
    by_gradient = options.method == "gradient_rollout"
    second = by_gradient and options.second_order
    stores = options.form == "stored" or options.head_fusion != "mean"
    stores = stores or options.discard_ratio > 0 or second
    used = range(len(blocks))[options.start_layer :]
    block = blocks[used[0]]
    attention: Any = getattr(block, "attn", block)
    where = f"blocks {used[0]} to {used[-1]} ({type(attention).__name__})"
    try:
        Tiles(1, 1, tokens, images)
    except ValueError as error:
        return f"{where}: {error}; lower model.image_size"
    heads = attention.num_heads if stores else int(by_gradient)
    copies = 2 if second else 1  # the gradient of the attention is a matrix as well
    reason = too_large(len(images), len(used), heads, tokens, copies, images.device)
    if reason is None:
        return None
    return (
        f"{where}: {reason}. model.attention.form=auto head_fusion=mean discard_ratio=0 "
        "second_order=false keep least; else lower data.batch_size or model.image_size"
    )


def too_large(
    images: int, blocks: int, heads: int, tokens: int, copies: int, device: torch.device
) -> str | None:
    """Why attention matrices that are kept cannot fit into free memory, or None.

    Args:
        images: in a batch.
        blocks: that take part.
        heads: of a block.
        tokens: N of the N x N matrices.
        copies: of each that are certainly kept at one time.
        device: where.
    """
    needed = images * blocks * heads * tokens**2 * copies * _FLOAT_BYTES
    free = free_memory(device)
    if free is None or needed <= free:
        return None
    return (
        f"attention matrices of {tokens} x {tokens} tokens, {blocks} blocks, {heads} heads and "
        f"{images} images need at least {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    )
