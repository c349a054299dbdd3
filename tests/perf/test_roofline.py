"""Kernel times beside counted bytes and arithmetic."""

import dataclasses
from functools import partial

import pytest
import torch
from perf.alignment_forms import FORMS
from perf.alignment_step import StepSetting, TrainingStep
from perf.roofline import (
    PRODUCTS,
    Peaks,
    calls_in_steps,
    compare,
    cost_of_products,
    cuda_clock,
    measure_peaks,
    product_calls,
    roofline,
)

from artifactnet.models.attention import tap, tiles

SMALL = StepSetting("test_vit", size=48)
BLOCKS = 6


def test_the_slowest_of_moving_multiplying_and_exponentials_bounds_a_kernel():
    costs = {
        "a": {"bytes": 100, "flops": 10, "exponentials": 1},
        "b": {"bytes": 10, "flops": 400, "exponentials": 1},
        "c": {"bytes": 10, "flops": 400, "exponentials": 20},
    }
    calls = dict.fromkeys(costs, lambda: None)
    found = compare(calls, costs, Peaks(50.0, 100.0, 2.5), lambda call, repeats: 16.0, 3)
    assert found["a"] == {
        "seconds": 16, "bytes": 100, "flops": 10, "exponentials": 1,
        "roofline_seconds": 2, "limit": "bytes", "share_of_roofline": 0.125,
    }  # fmt: skip
    bounds = {name: (row["limit"], row["roofline_seconds"]) for name, row in found.items()}
    assert bounds == {"a": ("bytes", 2), "b": ("flops", 4), "c": ("exponentials", 8)}
    assert found["c"]["share_of_roofline"] == 0.5


def test_calls_of_a_vit_meet_counted_costs():
    calls = product_calls(tiles, (2, 3, 17, 16), torch.float32, "cpu")
    shapes = [
        tuple(calls["log_sum_exp"]().shape),
        tuple(calls["row_product"]().shape),
        tuple(calls["column_product"]().shape),
        *(tuple(part.shape) for part in calls["rank_one_backward"]()),
    ]
    assert shapes == [(2, 3, 17), (2, 17), (2, 3, 17), (2, 3, 17, 16), (2, 3, 17, 16)]
    done = []

    def clock(call, repeats):
        call()
        return 2.0

    peaks = measure_peaks(
        "cpu", torch.float32, clock, 1, lambda: done.append(1), 30, copied=50, side=10
    )
    assert peaks == Peaks(50.0, 1000.0, 15.0)  # a copy reads and writes; a product is two FLOPs
    assert done == [1]
    found = compare(calls, cost_of_products(2, 3, 17, 17, 16, 4), peaks, clock, 2)
    assert tuple(found) == tuple(calls) == PRODUCTS
    assert found["row_product"]["flops"] == 2 * 2 * 3 * 17 * 17 * 16


def step_calls(method):
    step = TrainingStep(dataclasses.replace(SMALL, method=method))
    return calls_in_steps(tiles, {form: partial(step.run, form) for form in FORMS[method]})


def test_a_step_calls_what_its_form_needs(monkeypatch):
    fused = {"fused": BLOCKS}
    expected = {"log_sum_exp": {}, "row_product": fused, "column_product": fused}
    assert step_calls("rollout") == {**expected, "rank_one_backward": {}}
    # where no fused kernel tells its log-sum-exp, as in float32 on a GPU
    monkeypatch.setattr(tap, "can_fuse", lambda *_: False)
    assert step_calls("rollout") == dict.fromkeys(PRODUCTS, fused)


def test_gradient_rollout_multiplies_in_tiles_of_its_own():
    found = step_calls("gradient_rollout")
    assert found.pop("log_sum_exp") == {"second order": BLOCKS}  # its attention is not fused
    assert found == {"row_product": {}, "column_product": {}, "rank_one_backward": {}}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_on_a_gpu(dtype):
    step = TrainingStep(dataclasses.replace(SMALL, size=224, device="cuda", dtype=dtype))
    steps = {"fused": partial(step.run, "fused")}
    found = roofline((2, 6, 257, 64), step.dtype, 3, steps)["products"]
    assert tuple(found) == PRODUCTS
    assert all(0 < row["share_of_roofline"] < 1 for row in found.values())
    used = {name for name in PRODUCTS if found[name]["calls_in_step"] == {"fused": BLOCKS}}
    half = {"row_product", "column_product"}
    assert used == (set(PRODUCTS) if dtype == "float32" else half)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_clock_of_a_gpu_waits_for_it():
    matrix = torch.randn(4096, 4096, device="cuda")
    once = cuda_clock(lambda: matrix @ matrix, 5)
    assert cuda_clock(lambda: [matrix @ matrix for _ in range(8)], 5) > 4 * once


def test_cost_counts_tensors_and_multiplications():
    batch, heads, queries, keys, dim = 2, 3, 5, 7, 48
    q = torch.zeros(batch, heads, queries, dim, dtype=torch.float16)
    k = torch.zeros(batch, heads, keys, dim, dtype=torch.float16)
    lse = torch.zeros(batch, heads, queries)
    weights, values = torch.zeros(batch, queries), torch.zeros(batch, keys)
    part = torch.zeros(batch, heads, keys)
    gradient_inputs = [q, k, lse, weights, values, lse]
    moved = {
        "log_sum_exp": [q, k, lse],
        "row_product": [q, k, lse, weights, part, part, values],
        "column_product": [q, k, lse, values, lse],
        "rank_one_backward": [*gradient_inputs, q, *gradient_inputs, k],
    }
    found = cost_of_products(batch, heads, queries, keys, dim, element_bytes=2)
    entries = len([0 for _ in range(batch * heads) for _ in range(queries) for _ in range(keys)])
    for name, tensors in moved.items():
        kernels, products = (2, 4) if name == "rank_one_backward" else (1, 1)
        assert found[name]["bytes"] == sum(each.nbytes for each in tensors)
        assert found[name]["flops"] == products * 2 * entries * dim
        assert found[name]["exponentials"] == kernels * entries
    assert found.keys() == moved.keys()
