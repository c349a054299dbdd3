"""Whether what a rollout keeps fits into memory: known before the first step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from artifactnet.config import AttentionConfig
from artifactnet.models.attention.tiles import Tiles
from artifactnet.models.free_memory import free_memory

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
