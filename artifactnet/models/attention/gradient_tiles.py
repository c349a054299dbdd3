"""Products with W = max(0, mean_h P_h * G_h), G_h = dO_h v_h^T, a tile at a time.

W couples the heads, so all heads of a tile's rows are gone through before the tile is used;
where they do not fit together their scores are computed twice in the backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from artifactnet.models.attention.tiles import Tiles, as_pairs, cut, like, product, with_log_sum_exp

SOFTMAX_BACKWARD = torch.ops.aten._softmax_backward_data.out


class AttentionInputs(NamedTuple):
    """One block's attention and the gradient of the logit at its output."""

    q: Tensor  # (B, H, M, d); M may be fewer than N
    k: Tensor  # (B, H, N, d)
    v: Tensor  # (B, H, N, d)
    d_out: Tensor  # dO (B, H, M, d)
    log_sum_exp: Tensor  # (B, H, M)
    scale: float


class Gradients(NamedTuple):
    """Of a block's input row (B, M), and of q, k, v and dO like these; in their types."""

    row: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    d_out: Tensor | None


class Block:
    """One block's tensors with (image, head) pairs in front, and room for its tiles."""

    def __init__(self, inputs: AttentionInputs) -> None:
        q, k, v, d_out, log_sum_exp, scale = inputs
        self.heads = q.shape[1]
        # (B H, M, d + 1) and (B H, d + 1, N): their product is the logarithm of P
        self.left, self.right = with_log_sum_exp(q, k, log_sum_exp, scale)
        self.d_out = as_pairs(d_out)  # (B H, M, d)
        self.values = as_pairs(v)  # (B H, N, d)
        self.tiles = Tiles(self.left.shape[0], self.left.shape[1], k.shape[2], self.left)
        self.weights, self.slopes, self.spare, self.products, self.matrix = (
            self.tiles.buffer() for _ in range(5)
        )
        self.total = self.products  # what of them is in use

    def parts(self) -> Iterator[tuple[slice, slice, list[slice]]]:
        """Images, rows, and the groups of pairs that make up these images' heads."""
        images = max(1, self.tiles.pairs // self.heads)
        for chosen in cut(len(self.left) // self.heads, images):
            first, last = chosen.start * self.heads, chosen.stop * self.heads
            step = last - first
            if step > self.tiles.pairs:  # groups of equal size
                step = max(n for n in range(1, self.tiles.pairs + 1) if self.heads % n == 0)
            groups = [slice(first + g.start, first + g.stop) for g in cut(last - first, step)]
            for rows in cut(self.left.shape[1], self.tiles.rows):
                yield chosen, rows, groups

    def plain(self) -> tuple[Tensor, Tensor]:
        """Queries times scale and keys, (B H, M, d) and (B H, N, d)."""
        return self.left[..., :-1], self.right[:, :-1].transpose(1, 2)

    def tile(self, pairs: slice, rows: slice, d_out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """P and G (of another ``d_out`` if given) of some rows; valid until the next call."""
        d_out = self.d_out if d_out is None else d_out
        weights = product(self.left[pairs, rows], self.right[pairs], self.weights).exp_()
        values = self.values[pairs].transpose(1, 2)
        return weights, product(d_out[pairs, rows], values, self.slopes)

    def add(self, weights: Tensor, slopes: Tensor, first: bool) -> None:
        """Add P * G of a group to those of the groups before."""
        self.total = self.products[: weights.numel()].view_as(weights)
        if first:
            torch.mul(weights, slopes, out=self.total)
        else:
            self.total.addcmul_(weights, slopes)

    def fuse(self, images: slice, rows: slice, into: Tensor | None = None) -> Tensor:
        """W (images, rows, N) from what was added: there, or valid until the next call."""
        shape = images.stop - images.start, rows.stop - rows.start, self.right.shape[2]
        if into is None:
            into = self.matrix[: shape[0] * shape[1] * shape[2]].view(shape)
        by_image = self.total.view(shape[0], -1, *shape[1:])
        return torch.sum(by_image, dim=1, out=into).div_(self.heads).clamp_min_(0)

    def fused(
        self, images: slice, rows: slice, groups: list[slice], into: Tensor | None = None
    ) -> Tensor:
        """W of some images' rows, (images, rows, N): there, or valid until the next call."""
        for pairs in groups:
            self.add(*self.tile(pairs, rows), pairs is groups[0])
        return self.fuse(images, rows, into)


def fused_row(
    inputs: AttentionInputs, row: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Push a row through one block of gradient rollout: u = r / (1 + W 1), u^T (I + W).

    Args:
        row: r, (B, M); zero for the other queries.
        keep: return W if it is no larger than q, k, v and dO, which are kept anyway: N <= 4 H d.

    Returns:
        the next row (B, N), the sums 1 + W 1 (B, M), and W (B, M, N) or None.
    """
    q, k = inputs.q, inputs.k
    block = Block(inputs)
    sums = torch.empty_like(row)
    below = row.new_zeros(len(row), k.shape[2])
    keep = keep and k.shape[2] <= 4 * q.shape[1] * q.shape[3]
    kept = row.new_empty(*row.shape, k.shape[2]) if keep else None
    for images, rows, groups in block.parts():
        into = None if kept is None else kept[images, rows]
        matrix = block.fused(images, rows, groups, into)
        sums[images, rows] = 1 + matrix.sum(dim=-1)
        share = row[images, rows] / sums[images, rows]
        below[images] += torch.bmm(share[:, None], matrix)[:, 0]
        below[images, rows] += share
    return below, sums, kept


def matrix_gradient(matrix: Tensor, share: Tensor, target: Tensor, slope: Tensor) -> Tensor:
    """dW / H of some rows, (B, 1, M, N): share_i (target_j - slope_i) where W (B, M, N) > 0.

    With share u / H (B, M), target g (B, N) and slope t (B, M) of `fused_row_backward`.
    """
    gradient = (target[:, None] - slope[..., None]).mul_(share[..., None])
    return torch.ops.aten.threshold_backward(gradient, matrix, 0)[:, None]


def fused_row_backward(
    inputs: AttentionInputs,
    row: Tensor,
    sums: Tensor,
    kept: Tensor | None,
    gradient: Tensor,
    through_d_out: bool,
) -> Gradients:
    """Gradient of `fused_row`'s row, contracted with g.

    t = (g + W g) / sums is dL/dr; dW_ij = u_i (g_j - t_i) where W > 0; then with X = P * dW / H
    dv = X^T dO, d(dO) = X v, dS = P * (Y - row sums of P * Y) with Y = G * dW / H, dq = s dS k,
    dk = s dS^T q.

    Args:
        inputs, row: as given to `fused_row`.
        sums, kept: as it returned them; W is computed again where it was not kept.
        gradient: g, (B, N).
        through_d_out: dO has a gradient too.
    """
    q, k, v, d_out, _, scale = inputs
    block = Block(inputs)
    plain_q, plain_k = block.plain()
    d_q, d_k, d_v = (torch.zeros_like(x) for x in (block.d_out, block.values, block.values))
    d_d_out = torch.empty_like(block.d_out) if through_d_out else None
    d_row = torch.empty_like(row)
    for images, rows, groups in block.parts():
        matrix = block.fused(images, rows, groups) if kept is None else kept[images, rows]
        target, norm = gradient[images], sums[images, rows]
        slope = (target[:, rows] + torch.bmm(matrix, target[..., None])[..., 0]) / norm
        d_row[images, rows] = slope
        share = row[images, rows] / norm / block.heads
        d_matrix = matrix_gradient(matrix, share, target, slope)
        for pairs in groups:
            weights, slopes = block.tile(pairs, rows)
            x = block.spare[: weights.numel()].view_as(weights)
            by_image = (len(target), -1, *weights.shape[1:])
            torch.mul(weights.view(by_image), d_matrix, out=x.view(by_image))
            d_v[pairs].baddbmm_(x.transpose(1, 2), block.d_out[pairs, rows])
            if d_d_out is not None:
                d_d_out[pairs, rows] = torch.bmm(x, block.values[pairs])
            slopes.view(by_image).mul_(d_matrix)
            d_scores = SOFTMAX_BACKWARD(slopes, weights, -1, weights.dtype, grad_input=slopes)
            d_q[pairs, rows] = torch.bmm(d_scores, plain_k[pairs])
            d_k[pairs].baddbmm_(d_scores.transpose(1, 2), plain_q[pairs, rows])
    d_q = d_q.mul_(scale)
    d_d_out = None if d_d_out is None else like(d_out, d_d_out)
    return Gradients(d_row, like(q, d_q), like(k, d_k), like(v, d_v), d_d_out)
