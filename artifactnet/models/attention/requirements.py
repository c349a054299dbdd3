"""What a rollout requires, checked before the first step: standard attention, and enough memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from artifactnet.config import AttentionConfig
from artifactnet.models.attention.tap import AttentionLayer, AttentionTap
from artifactnet.models.attention.tiles import Tiles

_FLOAT_BYTES = 4


class _Container(NamedTuple):
    """Files with the memory limit and use of a container."""

    limit: Path
    used: Path
    statistics: Path
    cache: str  # in the statistics: file cache that the system drops before memory runs out


_SYSTEM = Path("/proc/meminfo")
_GROUPS = Path("/sys/fs/cgroup")
_CONTAINERS = (  # the second and the first kind of cgroup
    _Container(
        _GROUPS / "memory.max", _GROUPS / "memory.current", _GROUPS / "memory.stat", "inactive_file"
    ),
    _Container(
        _GROUPS / "memory/memory.limit_in_bytes",
        _GROUPS / "memory/memory.usage_in_bytes",
        _GROUPS / "memory/memory.stat",
        "total_inactive_file",
    ),
)


def refused_block(blocks: nn.ModuleList, tokens: int, run: Callable[[], Any]) -> str | None:
    """The first block whose attention a rollout would misread, its class, and the reason.

    Standard form: one softmax over all tokens per block, by `scaled_dot_product_attention`.
    Refused are windows, linear attention, several attentions in a block, and results that are not
    finite. (Gated attention is refused when the model is built.)

    Args:
        blocks: the transformer's blocks, in the order in which they run.
        tokens: that each should attend to, prefix tokens included.
        run: a forward pass through them.
    """
    spans: list[tuple[int, int]] = [(0, 0)] * len(blocks)
    hooks = []
    with torch.no_grad(), AttentionTap(fused=False) as tap:
        for index, block in enumerate(blocks):

            def before(*_: Any, index: int = index) -> None:
                spans[index] = (len(tap.layers), 0)

            def after(*_: Any, index: int = index) -> None:
                spans[index] = (spans[index][0], len(tap.layers))

            hooks += [block.register_forward_pre_hook(before), block.register_forward_hook(after)]
        try:
            run()
        finally:
            for hook in hooks:
                hook.remove()
    for index, (block, (start, end)) in enumerate(zip(blocks, spans, strict=True)):
        attention = getattr(block, "attn", block)
        reason = _why_not(attention, tap.layers[start:end], tokens)
        if reason is not None:
            return f"block {index} ({type(attention).__name__}) {reason}"
    return None


def _why_not(attention: nn.Module, calls: Sequence[AttentionLayer], tokens: int) -> str | None:
    if not calls:
        return (
            "does not use standard fused attention; is it linear attention, or is timm's fused "
            "attention switched off (TIMM_FUSED_ATTN=0)?"
        )
    if len(calls) > 1:
        return f"attends {len(calls)} times; a rollout needs one softmax attention per block"
    if calls[0].q.shape[2] != tokens or calls[0].k.shape[2] != tokens:
        return (
            f"attends from {calls[0].q.shape[2]} to {calls[0].k.shape[2]} of {tokens} tokens; "
            "is it windowed or pooled?"
        )
    for name in ("q", "k", "v", "out"):
        tensor = getattr(calls[0], name)
        if not torch.isfinite(tensor).all():
            what = f"gives values that are not finite ({name}, {str(tensor.dtype)[6:]}); "
            if tensor.dtype == torch.float16:
                return what + "set train.precision=bf16 or 32"
            return what + "are its weights or the images damaged?"
    return None


def cannot_hold(
    options: AttentionConfig, blocks: nn.ModuleList, images: Tensor, tokens: int
) -> str | None:
    """Why the matrices that training keeps, or a tile, do not fit into memory; None if they do.

    Args:
        images: a batch.
        tokens: of each of its images, prefix tokens included.
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
    needed = len(images) * len(used) * heads * tokens**2 * copies * _FLOAT_BYTES
    free = free_memory(images.device)
    if free is None or needed <= free:
        return None
    return (
        f"{where}: attention matrices of {tokens} x {tokens} tokens, {len(used)} blocks, {heads} "
        f"heads and {len(images)} images need at least {needed / 1e9:.1f} GB, and "
        f"{free / 1e9:.1f} GB are free. model.attention.form=auto head_fusion=mean "
        "discard_ratio=0 second_order=false keep least; else lower data.batch_size or "
        "model.image_size"
    )


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be allocated on a device, at least 0; None if unknown.

    CUDA: free on the GPU, or reserved by PyTorch and unused. MPS: the rest of the recommended
    working set. Otherwise the smaller of the system's available memory and the rest of a
    container's limit, where file cache that can be dropped does not count as used.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        used = torch.mps.current_allocated_memory()
        return max(0, torch.mps.recommended_max_memory() - used)
    limits = [_of_system(), *(_of_container(container) for container in _CONTAINERS)]
    known = [free for free in limits if free is not None]
    return max(0, min(known)) if known else None


def _of_system() -> int | None:
    try:
        lines = _SYSTEM.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return None
    values = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(values[0]) * 1024 if values else None


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
    values = [line.split()[1] for line in lines if line.startswith(f"{container.cache} ")]
    return limit - used + (int(values[0]) if values else 0)
