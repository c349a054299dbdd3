"""Products with attention matrices that are never stored, in plain PyTorch.

P_h = softmax(scale q_h k_h^T) exists a tile at a time: some heads, some rows, all columns. With
the log-sum-exp of its rows a tile costs one matrix product and one exponential. Everything is
float32 or wider whatever the model runs in; sums have a fixed order.

Arguments of the products: q (B, H, M, d), where M may be fewer than N; k (B, H, N, d); lse, the
log-sum-exp of the scores (B, H, M); and the scale of the scores.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS = 144  # of a tile, at most; ViTs' token counts are little more than multiples of 16
_CPU_TILE = 1_600_000  # bytes: two heads at 1,370 tokens, one for each of two cores' caches
_GPU_TILE = 1 << 27


def tile_bytes(device: torch.device) -> int:
    """Memory of one tile, of which at most five exist."""
    return _CPU_TILE if device.type == "cpu" else _GPU_TILE


class Tiles:
    """Which (image, head) pairs and which rows are in memory together.

    Args:
        pairs: images times heads.
        rows, columns: of one matrix.
        like: gives dtype and device of the tiles.

    Raises:
        ValueError: not even one row fits.
    """

    def __init__(self, pairs: int, rows: int, columns: int, like: Tensor) -> None:
        budget = tile_bytes(like.device) // (columns * like.element_size())
        if budget < 1:
            raise ValueError(
                f"one row of {columns} tokens does not fit into a tile of "
                f"{tile_bytes(like.device) / 1e6:g} MB"
            )
        self.rows = _even(rows, min(_ROWS, budget))
        self.pairs = _even(pairs, max(1, budget // self.rows))
        self._all = pairs, rows
        self._columns = columns
        self._like = like

    def buffer(self) -> Tensor:
        """Room for one tile."""
        return self._like.new_empty(self.pairs * self.rows * self._columns)

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        """(pairs, rows) of every tile, rows fastest."""
        for pairs in cut(self._all[0], self.pairs):
            for rows in cut(self._all[1], self.rows):
                yield pairs, rows


def _even(count: int, most: int) -> int:
    """Size of pieces, ``most`` or less, so that the last is hardly smaller than the others."""
    return -(-count // -(-count // most))


def cut(count: int, step: int) -> Iterator[slice]:
    """0..count in slices of ``step``, the last may be shorter."""
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def as_pairs(tensor: Tensor) -> Tensor:
    """(B, H, N, ...) of any float type as contiguous (B H, N, ...), float32 or wider."""
    wide = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    return wide.flatten(0, 1).contiguous()


def with_log_sum_exp(
    q: Tensor, k: Tensor, log_sum_exp: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """(B H, M, d + 1) and (B H, d + 1, N) whose plain product is scale q k^T - log-sum-exp."""
    size = q.shape[-1]
    left = log_sum_exp.new_empty(*q.shape[:3], size + 1)
    left[..., :size] = q
    left[..., :size] *= scale
    torch.neg(log_sum_exp, out=left[..., size])
    right = log_sum_exp.new_ones(*k.shape[:3], size + 1)
    right[..., :size] = k
    return left.flatten(0, 1), right.flatten(0, 1).transpose(1, 2)


def product(left: Tensor, right: Tensor, buffer: Tensor) -> Tensor:
    """left @ right of batches of matrices, written to the start of ``buffer``."""
    shape = left.shape[0], left.shape[1], right.shape[2]
    return torch.bmm(left, right, out=buffer[: shape[0] * shape[1] * shape[2]].view(shape))


def like(original: Tensor, gradient: Tensor) -> Tensor:
    """A gradient of (B H, ...) in the shape and type of what it is the gradient of."""
    return gradient.view(original.shape).to(original.dtype)


def pad_queries(gradient: Tensor, missing: int) -> Tensor:
    """(B, H, M, d) with zeros for ``missing`` further queries."""
    return F.pad(gradient, (0, 0, 0, missing)) if missing else gradient


def log_sum_exp(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Natural log of sum_j exp(scale q_i . k_j), (B, H, M), for kernels that do not return it."""
    queries, keys = as_pairs(q) * scale, as_pairs(k).transpose(1, 2)
    sums = queries.new_empty(queries.shape[:2])
    tiles = Tiles(queries.shape[0], queries.shape[1], k.shape[2], queries)
    buffer = tiles.buffer()
    for pairs, rows in tiles:
        scores = product(queries[pairs, rows], keys[pairs], buffer)
        sums[pairs, rows] = scores.logsumexp(dim=-1)
    return sums.view(q.shape[:3])


def row_product(q: Tensor, k: Tensor, lse: Tensor, weights: Tensor, scale: float) -> Tensor:
    """Weights (B, M) times the mean attention matrix: sum_i weights_i mean_h P_h,ij, (B, N)."""
    batch, heads, queries, _ = q.shape
    left, right = with_log_sum_exp(q, k, lse, scale)
    shares = weights[:, None].expand(batch, heads, queries).reshape(batch * heads, 1, queries)
    totals = left.new_zeros(batch * heads, 1, k.shape[2])
    tiles = Tiles(batch * heads, queries, k.shape[2], left)
    buffer = tiles.buffer()
    for pairs, rows in tiles:
        matrix = product(left[pairs, rows], right[pairs], buffer).exp_()
        totals[pairs].baddbmm_(shares[pairs, :, rows], matrix)
    return totals.view(batch, heads, -1).mean(dim=1)


def column_product(q: Tensor, k: Tensor, lse: Tensor, values: Tensor, scale: float) -> Tensor:
    """Every head's attention matrix times a column vector g (B, N): (P_h g)_i, (B, H, M)."""
    batch, heads, queries, _ = q.shape
    left, right = with_log_sum_exp(q, k, lse, scale)
    results = left.new_empty(batch * heads, queries)
    tiles = Tiles(heads, queries, k.shape[2], left)
    buffer = tiles.buffer()
    for image, column in enumerate(values):  # one vector at a time: quicker than a batch of them
        for pairs, rows in tiles:
            pairs = slice(image * heads + pairs.start, image * heads + pairs.stop)
            matrix = product(left[pairs, rows], right[pairs], buffer).exp_()
            results[pairs, rows] = (matrix.flatten(0, 1) @ column).view(matrix.shape[:2])
    return results.view(batch, heads, queries)


def rank_one_backward(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    weights: Tensor,
    values: Tensor,
    products: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Gradient of `row_product`, contracted with values g, with respect to q and k.

    dS_h,ij = P_h,ij (weights_i / H) (g_j - (P_h g)_i), dq = scale dS k, dk = scale dS^T q, for
    weights (B, M), values (B, N) and their `column_product` (B, H, M).
    """
    batch, heads, queries, _ = q.shape
    left, right = with_log_sum_exp(q, k, lse, scale)
    plain_q, plain_k = left[..., :-1], right[:, :-1].transpose(1, 2)  # q times scale
    shares = (weights[:, None].expand(batch, heads, -1) / heads).reshape(-1, queries, 1)
    columns = values[:, None].expand(batch, heads, -1).reshape(batch * heads, 1, -1)
    centers = as_pairs(products)[..., None]
    d_q, d_k = torch.empty_like(plain_q), torch.zeros_like(plain_k)
    tiles = Tiles(batch * heads, queries, k.shape[2], left)
    buffer, second = tiles.buffer(), tiles.buffer()
    for pairs, rows in tiles:
        matrix = product(left[pairs, rows], right[pairs], buffer).exp_()
        slope = second[: matrix.numel()].view_as(matrix)
        torch.sub(columns[pairs], centers[pairs, rows], out=slope)
        matrix.mul_(slope).mul_(shares[pairs, rows])
        d_q[pairs, rows] = torch.bmm(matrix, plain_k[pairs])
        d_k[pairs].baddbmm_(matrix.transpose(1, 2), plain_q[pairs, rows])
    return like(q, d_q.mul_(scale)), like(k, d_k)
