"""What the GPU runs for `triton_kernels`: P is formed in registers, never in memory.

P_h = softmax(scale q_h k_h^T) is recomputed from the rows' log-sum-exp wherever it is needed: one
matrix product and one exponential (base 2) per entry, no running maximum. One program makes one
block of rows of one head's result (OUTER) and walks through the other side (INNER at a time), so
nothing is added atomically. A result's rows lie on the tile's first axis: sums then run along the
axis that a thread mostly holds itself.

q is (B, H, M, d) and k (B, H, N, d) with any strides but 1 between neighbours of a row. All other
tensors are contiguous float32 with the shapes of `tiles`; only gradients have q's and k's type.
``log2_scale`` is the scale of the scores times log2(e).
"""

from __future__ import annotations

import triton
import triton.language as tl

_LOG2_E = tl.constexpr(1.4426950408889634)
_INFINITY = tl.constexpr(float("inf"))


@triton.jit
def _head(
    tensor: tl.tensor, pair: tl.tensor, heads: tl.tensor, batch_stride: tl.tensor, stride: tl.tensor
) -> tl.tensor:
    """Start of one image's head in (B, H, N, d)."""
    return tensor + (pair // heads) * batch_stride + (pair % heads) * stride


@triton.jit
def _load(
    head: tl.tensor, rows: tl.tensor, count: tl.tensor, stride: tl.tensor, D: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Rows of one head, zero beyond the last row and beyond the head size."""
    columns = tl.arange(0, BLOCK_D)
    inside = rows[:, None] < count
    if D != BLOCK_D:
        inside = inside & (columns[None, :] < D)
    return tl.load(head + rows[:, None] * stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _store(
    head: tl.tensor, rows: tl.tensor, count: tl.tensor, block: tl.tensor, D: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:  # fmt: skip
    """Write rows of one head of a contiguous result, in its type."""
    columns = tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < count) & (columns[None, :] < D)
    where = head + rows[:, None] * D + columns[None, :]
    tl.store(where, block.to(head.dtype.element_ty), mask=inside)


@triton.jit
def log_sum_exp(
    q: tl.tensor, k: tl.tensor, out: tl.tensor, log2_scale: tl.tensor,
    heads: tl.tensor, queries: tl.tensor, keys: tl.tensor, q_batch: tl.tensor, q_head: tl.tensor,
    q_row: tl.tensor, k_batch: tl.tensor, k_head: tl.tensor, k_row: tl.tensor,
    D: tl.constexpr, BLOCK_D: tl.constexpr, OUTER: tl.constexpr, INNER: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """One block of queries: running maximum and sum over all keys."""
    pair = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * OUTER + tl.arange(0, OUTER)
    q_block = _load(_head(q, pair, heads, q_batch, q_head), rows, queries, q_row, D, BLOCK_D)
    k_start = _head(k, pair, heads, k_batch, k_head)
    highest = tl.full((OUTER,), -_INFINITY, tl.float32)
    total = tl.zeros((OUTER,), tl.float32)
    for start in range(0, keys, INNER):
        columns = start + tl.arange(0, INNER)
        k_block = _load(k_start, columns, keys, k_row, D, BLOCK_D)
        scores = tl.dot(q_block, tl.trans(k_block), input_precision=PRECISION) * log2_scale
        scores = tl.where(columns[None, :] < keys, scores, -_INFINITY)
        higher = tl.maximum(highest, tl.max(scores, 1))
        total = total * tl.exp2(highest - higher) + tl.sum(tl.exp2(scores - higher[:, None]), 1)
        highest = higher
    natural = (highest + tl.log2(total)) / _LOG2_E
    tl.store(out + pair * queries + rows, natural, mask=rows < queries)


@triton.jit
def row_product(
    q: tl.tensor, k: tl.tensor, lse: tl.tensor, weights: tl.tensor, out: tl.tensor,
    log2_scale: tl.tensor,
    heads: tl.tensor, queries: tl.tensor, keys: tl.tensor, q_batch: tl.tensor, q_head: tl.tensor,
    q_row: tl.tensor, k_batch: tl.tensor, k_head: tl.tensor, k_row: tl.tensor,
    D: tl.constexpr, BLOCK_D: tl.constexpr, OUTER: tl.constexpr, INNER: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """One block of keys of one head: sum over all queries of weights times P."""
    pair = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * OUTER + tl.arange(0, OUTER)
    k_block = _load(_head(k, pair, heads, k_batch, k_head), rows, keys, k_row, D, BLOCK_D)
    q_start = _head(q, pair, heads, q_batch, q_head)
    weights += (pair // heads) * queries
    lse += pair * queries
    total = tl.zeros((OUTER,), tl.float32)
    for start in range(0, queries, INNER):
        columns = start + tl.arange(0, INNER)
        inside = columns < queries
        q_block = _load(q_start, columns, queries, q_row, D, BLOCK_D)
        level = tl.load(lse + columns, mask=inside, other=0.0) * _LOG2_E
        # beyond the last query P is 1 (its q and log-sum-exp read as zero) and the weight 0
        weight = tl.load(weights + columns, mask=inside, other=0.0)
        scores = tl.dot(k_block, tl.trans(q_block), input_precision=PRECISION)
        p = tl.exp2(scores * log2_scale - level[None, :])
        total += tl.sum(p * weight[None, :], 1)
    tl.store(out + pair * keys + rows, total, mask=rows < keys)


@triton.jit
def column_product(
    q: tl.tensor, k: tl.tensor, lse: tl.tensor, values: tl.tensor, out: tl.tensor,
    log2_scale: tl.tensor,
    heads: tl.tensor, queries: tl.tensor, keys: tl.tensor, q_batch: tl.tensor, q_head: tl.tensor,
    q_row: tl.tensor, k_batch: tl.tensor, k_head: tl.tensor, k_row: tl.tensor,
    D: tl.constexpr, BLOCK_D: tl.constexpr, OUTER: tl.constexpr, INNER: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """One block of queries of one head: sum over all keys of P times values."""
    pair = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * OUTER + tl.arange(0, OUTER)
    q_block = _load(_head(q, pair, heads, q_batch, q_head), rows, queries, q_row, D, BLOCK_D)
    k_start = _head(k, pair, heads, k_batch, k_head)
    values += (pair // heads) * keys
    level = tl.load(lse + pair * queries + rows, mask=rows < queries, other=0.0) * _LOG2_E
    total = tl.zeros((OUTER,), tl.float32)
    for start in range(0, keys, INNER):
        columns = start + tl.arange(0, INNER)
        inside = columns < keys
        k_block = _load(k_start, columns, keys, k_row, D, BLOCK_D)
        value = tl.load(values + columns, mask=inside, other=0.0)
        scores = tl.dot(q_block, tl.trans(k_block), input_precision=PRECISION)
        p = tl.exp2(scores * log2_scale - level[:, None])
        # beyond the last key P = exp(-lse) may be infinite: a zero value does not cancel that
        total += tl.sum(tl.where(inside[None, :], p * value[None, :], 0.0), 1)
    tl.store(out + pair * queries + rows, total, mask=rows < queries)


@triton.jit
def query_gradient(
    q: tl.tensor, k: tl.tensor, lse: tl.tensor, weights: tl.tensor, values: tl.tensor,
    products: tl.tensor, gain: tl.tensor, out: tl.tensor, log2_scale: tl.tensor,
    log2_size: tl.tensor,
    heads: tl.tensor, queries: tl.tensor, keys: tl.tensor, q_batch: tl.tensor, q_head: tl.tensor,
    q_row: tl.tensor, k_batch: tl.tensor, k_head: tl.tensor, k_row: tl.tensor,
    D: tl.constexpr, BLOCK_D: tl.constexpr, OUTER: tl.constexpr, INNER: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """One block of queries of one head: dq = gain weights sum over keys of P (g - P g) k."""
    pair = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * OUTER + tl.arange(0, OUTER)
    own = rows < queries
    q_block = _load(_head(q, pair, heads, q_batch, q_head), rows, queries, q_row, D, BLOCK_D)
    k_start = _head(k, pair, heads, k_batch, k_head)
    values += (pair // heads) * keys
    level = tl.load(lse + pair * queries + rows, mask=own, other=0.0) * _LOG2_E - log2_size
    center = tl.load(products + pair * queries + rows, mask=own, other=0.0)
    total = tl.zeros((OUTER, BLOCK_D), tl.float32)
    for start in range(0, keys, INNER):
        columns = start + tl.arange(0, INNER)
        inside = columns < keys
        k_block = _load(k_start, columns, keys, k_row, D, BLOCK_D)
        value = tl.load(values + columns, mask=inside, other=0.0)
        scores = tl.dot(q_block, tl.trans(k_block), input_precision=PRECISION)
        slope = tl.exp2(scores * log2_scale - level[:, None]) * (value[None, :] - center[:, None])
        slope = tl.where(inside[None, :], slope, 0.0).to(k_block.dtype)
        total = tl.dot(slope, k_block, total, input_precision=PRECISION)
    share = tl.load(weights + (pair // heads) * queries + rows, mask=own, other=0.0)
    total *= (share * tl.load(gain + pair // heads))[:, None]
    _store(out + pair * queries * D, rows, queries, total, D, BLOCK_D)


@triton.jit
def key_gradient(
    q: tl.tensor, k: tl.tensor, lse: tl.tensor, weights: tl.tensor, values: tl.tensor,
    products: tl.tensor, gain: tl.tensor, out: tl.tensor, log2_scale: tl.tensor,
    log2_size: tl.tensor,
    heads: tl.tensor, queries: tl.tensor, keys: tl.tensor, q_batch: tl.tensor, q_head: tl.tensor,
    q_row: tl.tensor, k_batch: tl.tensor, k_head: tl.tensor, k_row: tl.tensor,
    D: tl.constexpr, BLOCK_D: tl.constexpr, OUTER: tl.constexpr, INNER: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """One block of keys of one head: dk = gain sum over queries of weights P (g - P g) q."""
    pair = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * OUTER + tl.arange(0, OUTER)
    k_block = _load(_head(k, pair, heads, k_batch, k_head), rows, keys, k_row, D, BLOCK_D)
    q_start = _head(q, pair, heads, q_batch, q_head)
    weights += (pair // heads) * queries
    lse += pair * queries
    products += pair * queries
    value = tl.load(values + (pair // heads) * keys + rows, mask=rows < keys, other=0.0)
    total = tl.zeros((OUTER, BLOCK_D), tl.float32)
    for start in range(0, queries, INNER):
        columns = start + tl.arange(0, INNER)
        inside = columns < queries
        q_block = _load(q_start, columns, queries, q_row, D, BLOCK_D)
        level = tl.load(lse + columns, mask=inside, other=0.0) * _LOG2_E - log2_size
        weight = tl.load(weights + columns, mask=inside, other=0.0)
        center = tl.load(products + columns, mask=inside, other=0.0)
        scores = tl.dot(k_block, tl.trans(q_block), input_precision=PRECISION)
        slope = (value[:, None] - center[None, :]) * weight[None, :]
        slope = slope * tl.exp2(scores * log2_scale - level[None, :])
        total = tl.dot(slope.to(q_block.dtype), q_block, total, input_precision=PRECISION)
    total *= tl.load(gain + pair // heads)
    _store(out + pair * keys * D, rows, keys, total, D, BLOCK_D)
