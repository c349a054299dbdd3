"""How close the rollout's GPU kernels come to the GPU's memory bandwidth and arithmetic rate."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import torch

_COPIED = 1 << 30  # bytes: far more than any cache holds
_SIDE = 8192  # of the matrices whose product shows the arithmetic rate
_WARM = 3
PRODUCTS = ("log_sum_exp", "row_product", "column_product", "rank_one_backward")
Clock = Callable[[Callable[[], object], int], float]


class Peaks(NamedTuple):
    """What a device reached in this run, with nothing else to do: the slopes of a roofline."""

    bytes_per_second: float
    flops_per_second: float
    exponentials_per_second: float


def roofline(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    repeats: int,
    steps: Mapping[str, Callable[[], object]],
) -> dict[str, Any]:
    """Time the Triton products on the GPU beside what their work would take alone.

    Args:
        shape: (B, H, N, d) of queries and keys.
        dtype: of both.
        repeats: how often each is timed.
        steps: form -> one training step with it.

    Returns:
        ``peaks`` of the device, see `measure_peaks`, and ``products``, see `compare`, each with
        ``calls_in_step``: how often the step of a form calls it, of the forms that do; or
        ``reason``, where Triton cannot be used.
    """
    try:
        from artifactnet.models.attention import triton_kernels
    except ImportError as error:
        return {"reason": f"triton cannot be imported ({error})"}
    sample = torch.empty(shape, dtype=dtype, device="cuda")
    reason = triton_kernels.why_not(sample, sample)
    if reason is not None:
        return {"reason": reason}
    from perf.exponentials import exponentials_in_registers  # needs Triton

    used = calls_in_steps(triton_kernels, steps)
    work = exponentials_in_registers()
    peaks = measure_peaks("cuda", dtype, cuda_clock, repeats, *work)
    calls = product_calls(triton_kernels, shape, dtype, "cuda")
    batch, heads, tokens, size = shape
    costs = cost_of_products(batch, heads, tokens, tokens, size, sample.element_size())
    results = compare(calls, costs, peaks, cuda_clock, repeats)
    products = {name: {**row, "calls_in_step": used[name]} for name, row in results.items()}
    return {"peaks": peaks._asdict(), "products": products}


def calls_in_steps(
    products: ModuleType, steps: Mapping[str, Callable[[], object]]
) -> dict[str, dict[str, int]]:
    """Run steps and count which products each calls.

    Args:
        products: `tiles` or `triton_kernels`.
        steps: form -> one training step with it.

    Returns:
        product -> form -> calls, of the forms that make any.
    """
    counts: dict[str, dict[str, int]] = {name: {} for name in PRODUCTS}
    for form, step in steps.items():
        with _counting(products) as calls:
            step()
        for name in calls:
            counts[name][form] = calls[name]
    return counts


@contextmanager
def _counting(products: ModuleType) -> Iterator[Counter[str]]:
    """Count the calls of a module's products that are made inside."""
    calls: Counter[str] = Counter()
    originals = {name: getattr(products, name) for name in PRODUCTS}

    def counted(name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls[name] += 1
            return originals[name](*args)

        return call

    for name in PRODUCTS:
        setattr(products, name, counted(name))
    try:
        yield calls
    finally:
        for name, original in originals.items():
            setattr(products, name, original)


def product_calls(
    products: ModuleType, shape: tuple[int, int, int, int], dtype: torch.dtype, device: str
) -> dict[str, Callable[[], object]]:
    """A call of each product of a module, on random numbers laid out as a ViT's are.

    Args:
        products: `tiles` or `triton_kernels`.
        shape: (B, H, N, d).
        dtype: of queries and keys.
        device: ``cpu`` or ``cuda``.
    """
    batch, heads, tokens, size = shape
    generator = torch.Generator().manual_seed(0)
    both = torch.randn(batch, tokens, 2, heads, size, generator=generator).to(device, dtype)
    q, k = both.permute(2, 0, 3, 1, 4).unbind(0)
    weights = torch.rand(batch, tokens, generator=generator).to(device)
    values = torch.randn(batch, tokens, generator=generator).to(device)
    scale = size**-0.5
    sums = products.log_sum_exp(q, k, scale)
    columns = products.column_product(q, k, sums, values, scale)
    return {
        "log_sum_exp": lambda: products.log_sum_exp(q, k, scale),
        "row_product": lambda: products.row_product(q, k, sums, weights, scale),
        "column_product": lambda: products.column_product(q, k, sums, values, scale),
        "rank_one_backward": lambda: products.rank_one_backward(
            q, k, sums, weights, values, columns, scale
        ),
    }


def compare(
    calls: Mapping[str, Callable[[], object]],
    costs: Mapping[str, Mapping[str, int]],
    peaks: Peaks,
    clock: Clock,
    repeats: int,
) -> dict[str, dict[str, Any]]:
    """Seconds of each call, beside those of its roofline.

    Args:
        calls: see `product_calls`.
        costs: ``bytes``, ``flops`` and ``exponentials`` of each.
        peaks: of the device.
        clock: gives the median seconds of a call.
        repeats: how often each is timed.

    Returns:
        For each call its ``seconds``, the counted costs, ``roofline_seconds`` (the longest of
        the times that one of them would take alone), ``limit`` (which one) and
        ``share_of_roofline`` (1 cannot be beaten).
    """
    results = {}
    for name, call in calls.items():
        seconds = clock(call, repeats)
        alone = {
            "bytes": costs[name]["bytes"] / peaks.bytes_per_second,
            "flops": costs[name]["flops"] / peaks.flops_per_second,
            "exponentials": costs[name]["exponentials"] / peaks.exponentials_per_second,
        }
        limit = max(alone, key=lambda kind: alone[kind])
        results[name] = {
            "seconds": seconds,
            **costs[name],
            "roofline_seconds": alone[limit],
            "limit": limit,
            "share_of_roofline": alone[limit] / seconds,
        }
    return results


def measure_peaks(
    device: str,
    dtype: torch.dtype,
    clock: Clock,
    repeats: int,
    exponentials: Callable[[], object],
    exponential_count: int,
    copied: int = _COPIED,
    side: int = _SIDE,
) -> Peaks:
    """What the device moves (a copy: read and written) and computes (a matrix product, and
    exponentials that are given).

    Args:
        device: ``cpu`` or ``cuda``.
        dtype: of the matrices.
        clock: gives the median seconds of a call.
        repeats: how often each is timed.
        exponentials: computes them; on a GPU `exponentials_in_registers`.
        exponential_count: how many.
        copied: bytes of the copy.
        side: of the matrices.
    """
    source = torch.zeros(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    moving = clock(lambda: target.copy_(source), repeats)
    matrix = torch.randn(side, side, device=device).to(dtype)
    computing = clock(lambda: matrix @ matrix, repeats)
    raising = clock(exponentials, repeats)
    return Peaks(2 * copied / moving, 2 * side**3 / computing, exponential_count / raising)


def cuda_clock(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call on the GPU, by its events."""
    for _ in range(_WARM):
        call()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


def cost_of_products(
    batch: int, heads: int, queries: int, keys: int, dim: int, element_bytes: int
) -> dict[str, dict[str, int]]:
    """What each product must move and compute, for a comparison with a GPU's peak rates.

    Args:
        batch: images.
        heads: of the attention.
        queries: M.
        keys: N.
        dim: head size, without the padding to a power of two.
        element_bytes: of q and k.

    Returns:
        product's name -> ``bytes`` (every input read from memory once by each kernel, every
        result written once; what the cache serves again is not counted), ``flops`` (of the
        matrix products, a multiply-add is two) and ``exponentials`` (usually the tightest limit).
    """
    pairs = batch * heads
    both = pairs * (queries + keys) * dim * element_bytes
    row, column = 4 * batch * queries, 4 * batch * keys
    per_head_row, per_head_column = heads * row, heads * column
    entries = pairs * queries * keys
    one = {"flops": 2 * entries * dim, "exponentials": entries}
    inputs = both + 2 * per_head_row + row + column
    return {
        "log_sum_exp": {"bytes": both + per_head_row, **one},
        # every head's part is written, read again and averaged
        "row_product": {"bytes": both + per_head_row + row + 2 * per_head_column + column, **one},
        "column_product": {"bytes": both + 2 * per_head_row + column, **one},
        "rank_one_backward": {
            "bytes": 2 * inputs + both,
            "flops": 8 * entries * dim,
            "exponentials": 2 * entries,
        },
    }
