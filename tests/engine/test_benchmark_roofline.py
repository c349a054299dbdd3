"""Kernel times beside counted bytes and arithmetic."""

from __future__ import annotations

import pytest
import torch

from artifactnet.engine.benchmark_roofline import (
    Peaks,
    compare,
    measure_peaks,
    product_calls,
    roofline,
    wall_clock,
)
from artifactnet.models.attention import tiles

PRODUCTS = ["log_sum_exp", "row_product", "column_product", "rank_one_backward"]


def test_the_slower_of_moving_and_computing_bounds_a_kernel():
    calls = {"a": lambda: None, "b": lambda: None}
    costs = {"a": {"bytes": 100, "flops": 10}, "b": {"bytes": 10, "flops": 400}}
    found = compare(calls, costs, Peaks(50.0, 100.0), lambda call, repeats: 8.0, 3)
    assert found["a"] == {
        "seconds": 8, "bytes": 100, "flops": 10, "roofline_seconds": 2, "share_of_roofline": 0.25,
    }  # fmt: skip
    assert found["b"]["roofline_seconds"] == 4
    assert found["b"]["share_of_roofline"] == 0.5


def test_calls_are_the_products_of_a_vit():
    calls = product_calls(tiles, (2, 3, 17, 16), torch.float32, "cpu")
    assert list(calls) == PRODUCTS
    shapes = [
        tuple(calls["log_sum_exp"]().shape),
        tuple(calls["row_product"]().shape),
        tuple(calls["column_product"]().shape),
        *(tuple(part.shape) for part in calls["rank_one_backward"]()),
    ]
    assert shapes == [(2, 3, 17), (2, 17), (2, 3, 17), (2, 3, 17, 16), (2, 3, 17, 16)]


def test_calls_meet_counted_costs():
    triton_kernels = pytest.importorskip("artifactnet.models.attention.triton_kernels")
    calls = product_calls(tiles, (1, 2, 9, 8), torch.float32, "cpu")
    costs = triton_kernels.cost(1, 2, 9, 9, 8, 4)
    peaks = measure_peaks("cpu", torch.float32, wall_clock, 2, copied=1 << 16, side=32)
    found = compare(calls, costs, peaks, wall_clock, 2)
    assert list(found) == PRODUCTS
    assert all(row["seconds"] > 0 and row["share_of_roofline"] > 0 for row in found.values())
    assert found["row_product"]["flops"] == 2 * 2 * 9 * 9 * 8


def test_peaks_count_both_ways_of_a_copy_and_two_operations_per_product():
    peaks = measure_peaks("cpu", torch.float32, lambda call, repeats: 2.0, 1, copied=50, side=10)
    assert peaks == Peaks(50.0, 1000.0)


def test_the_clock_tells_the_median():
    waits = iter([0.5, 0.05, 0.001, 0.1])  # the first is not counted
    assert 0.05 <= wall_clock(lambda: __import__("time").sleep(next(waits)), 3) < 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    found = roofline((2, 6, 257, 64), torch.bfloat16, 3)
    assert list(found["products"]) == PRODUCTS
    assert all(0 < row["share_of_roofline"] < 1 for row in found["products"].values())
