"""Products by tiles against whole float64 matrices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.models.attention import tiles


def draw(seed, batch=2, heads=3, queries=7, keys=9, dim=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    # as timm makes them: heads and tokens swapped in memory
    q = normal(batch, queries, heads, dim).transpose(1, 2)
    k = normal(batch, keys, heads, dim).transpose(1, 2)
    wide = torch.promote_types(dtype, torch.float32)
    return q, k, normal(batch, queries).abs().to(wide), normal(batch, keys).to(wide)


def whole(q, k, scale):
    scores = (q.double() @ k.double().mT) * scale
    return scores.logsumexp(-1), scores.softmax(-1)


def small_tiles(monkeypatch, size):
    monkeypatch.setattr(tiles, "tile_bytes", lambda device: size)


@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 3),
    heads=st.integers(1, 4),
    queries=st.integers(1, 12),
    keys=st.integers(1, 12),
    rows=st.integers(1, 40),
)
@settings(max_examples=40, deadline=None)
def test_any_tile_gives_the_whole_matrix_product(seed, batch, heads, queries, keys, rows):
    q, k, weights, values = draw(seed, batch, heads, queries, keys)
    scale = 0.6
    expected_sums, matrix = whole(q, k, scale)
    with pytest.MonkeyPatch.context() as patch:
        small_tiles(patch, rows * keys * 8)
        sums = tiles.log_sum_exp(q, k, scale)
        row = tiles.row_product(q, k, sums, weights, scale)
        column = tiles.column_product(q, k, sums, values, scale)
        d_q, d_k = tiles.rank_one_backward(q, k, sums, weights, values, column, scale)
    torch.testing.assert_close(sums, expected_sums, atol=1e-12, rtol=1e-12)
    expected = (weights[:, None, :, None] * matrix).sum(2).mean(1)
    torch.testing.assert_close(row, expected, atol=1e-12, rtol=0)
    expected = (matrix @ values[:, None, :, None])[..., 0]
    torch.testing.assert_close(column, expected, atol=1e-12, rtol=0)
    leaf_q, leaf_k = q.clone().requires_grad_(), k.clone().requires_grad_()
    _, matrix = whole(leaf_q, leaf_k, scale)
    total = ((weights[:, None, :, None] * matrix).sum(2).mean(1) * values).sum()
    expected = torch.autograd.grad(total, (leaf_q, leaf_k))
    torch.testing.assert_close((d_q, d_k), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_summed_in_float32(dtype):
    q, k, weights, values = draw(1, queries=40, keys=40, dim=16, dtype=dtype)
    sums = tiles.log_sum_exp(q, k, 0.25)
    row = tiles.row_product(q, k, sums, weights, 0.25)
    column = tiles.column_product(q, k, sums, values, 0.25)
    d_q, d_k = tiles.rank_one_backward(q, k, sums, weights, values, column, 0.25)
    assert row.dtype == column.dtype == sums.dtype == torch.float32
    assert d_q.dtype == d_k.dtype == dtype
    _, matrix = whole(q, k, 0.25)
    expected = (weights.double()[:, None, :, None] * matrix).sum(2).mean(1)
    torch.testing.assert_close(row.double(), expected, atol=1e-5, rtol=1e-5)


@given(
    pairs=st.integers(1, 30),
    rows=st.integers(1, 300),
    columns=st.integers(1, 30),
    size=st.integers(1, 2000),
)
@settings(max_examples=60, deadline=None)
def test_tiles_cover_everything_once_within_their_memory(pairs, rows, columns, size):
    with pytest.MonkeyPatch.context() as patch:
        small_tiles(patch, (columns + size) * 4)
        found = tiles.Tiles(pairs, rows, columns, torch.zeros(1))
        seen = torch.zeros(pairs, rows)
        for which, some in found:
            seen[which, some] += 1
            count = (which.stop - which.start) * (some.stop - some.start) * columns
            assert count <= found.buffer().numel()
        assert found.buffer().numel() * 4 <= (columns + size) * 4
    assert (seen == 1).all()


def test_a_row_that_does_not_fit_is_refused(monkeypatch):
    small_tiles(monkeypatch, 1_000_000)
    with pytest.raises(ValueError, match="one row of 300000 tokens does not fit .* of 1 MB"):
        tiles.Tiles(1, 1, 300_000, torch.zeros(1))
