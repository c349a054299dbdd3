"""Attention alignment: the model should look where the artifacts are (X-AIGD Sec. 6.1)."""

from __future__ import annotations

import torch
from torch import Tensor


def artifact_share(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Target map A_art: the share of each patch's pixels that lie inside any artifact.

    Args:
        mask: (B, H, W) uint8 bit field; any bit counts.
        grid: rows and columns of the patch grid; they must divide H and W.

    Returns:
        (B, h, w) float32 in [0, 1], exact.

    Raises:
        ValueError: ``mask`` is not (B, H, W), or the grid does not divide it.
    """
    if mask.ndim != 3:
        raise ValueError(f"mask must be (B, H, W), got shape {tuple(mask.shape)}")
    (batch, height, width), (rows, columns) = mask.shape, grid
    if min(rows, columns) < 1 or height % rows or width % columns:
        raise ValueError(f"a {rows}x{columns} grid does not divide a {height}x{width} mask")
    patches = (mask != 0).reshape(batch, rows, height // rows, columns, width // columns)
    return patches.float().mean(dim=(2, 4))


def alignment_loss(
    heatmap: Tensor, share: Tensor, annotated: Tensor, benign_weight: float
) -> Tensor:
    """L_align: weighted squared distance of the model's map to the artifact shares.

    Per annotated image the mean over patches of ``W (A_cls - A_art)^2``, with W = 1 where a
    patch holds artifact pixels and ``benign_weight`` elsewhere. By annotation state:

    - artifact mask: as above;
    - annotated and clean (every real image): the share is zero everywhere, so all attention
      counts, with weight ``benign_weight``;
    - not annotated: contributes nothing, since any patch may hold an artifact.

    The sum is divided by the size of the batch, annotated or not: then the mean over the
    processes of a distributed run is the loss of the joint batch.

    Args:
        heatmap: (B, h, w) normalised attention A_cls in [0, 1].
        share: (B, h, w) of `artifact_share`, in [0, 1].
        annotated: (B,) bool, or the batch's annotation states (NONE is 0, so False).
        benign_weight: lambda >= 0, weight of patches without artifact.

    Returns:
        Scalar in float32 or better. Where nothing is annotated it is a zero that still belongs
        to the graph of ``heatmap``, so that distributed processes stay in step.

    Raises:
        ValueError: shapes do not match or the batch is empty.
    """
    if heatmap.ndim != 3 or heatmap.shape != share.shape or annotated.shape != share.shape[:1]:
        raise ValueError(
            f"shapes do not match: heatmap {tuple(heatmap.shape)}, share {tuple(share.shape)}, "
            f"annotated {tuple(annotated.shape)}"
        )
    if heatmap.numel() == 0:
        raise ValueError(f"the batch is empty: heatmap {tuple(heatmap.shape)}")
    precise = torch.promote_types(heatmap.dtype, torch.float32)  # squares in bf16 are too coarse
    attention, target = heatmap.to(precise), share.to(precise)
    weight = torch.where(target > 0, torch.ones_like(target), benign_weight)
    distance = (weight * (attention - target) ** 2).mean(dim=(1, 2))
    return (distance * annotated.bool()).sum() / len(heatmap)
