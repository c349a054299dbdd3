"""How close the rollout's GPU kernels come to what the GPU can move and compute."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # values of a program: 8 chains in each of 128 threads
_PROGRAMS = 1 << 14  # of which a large GPU runs some thousand at a time
_ROUNDS = 512  # 67 exponentials per byte moved: memory takes next to no time


class Exponentials(NamedTuple):
    """Work that is exponentials and hardly anything else."""

    run: Callable[[], object]
    exponentials: int


def exponentials_in_registers() -> Exponentials:
    """Exponentials (base 2, float32) on the GPU that take a few milliseconds."""
    values = torch.rand(_PROGRAMS * _BLOCK, device="cuda")
    return Exponentials(lambda: raise_powers(values, _ROUNDS), len(values) * _ROUNDS)


def raise_powers(values: Tensor, rounds: int) -> None:
    """x <- 2^-x in place, again and again.

    Args:
        values: (n,) float32 on a GPU, n a multiple of 1024; on a CPU in Triton's interpreter.
        rounds: how often.
    """
    repeat_exp2[(len(values) // _BLOCK,)](values, ROUNDS=rounds, BLOCK=_BLOCK)


@triton.jit
def repeat_exp2(values: tl.tensor, ROUNDS: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """x <- 2^-x in place, again and again: from anything >= 0 it stays between 0 and 1."""
    where = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(values + where)
    for _ in range(ROUNDS):
        x = tl.exp2(-x)
    tl.store(values + where, x)


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
    used = calls_in_steps(triton_kernels, steps)
    work = exponentials_in_registers()
    peaks = measure_peaks("cuda", dtype, cuda_clock, repeats, *work)
    calls = product_calls(triton_kernels, shape, dtype, "cuda")
    batch, heads, tokens, size = shape
    costs = triton_kernels.cost(batch, heads, tokens, tokens, size, sample.element_size())
    found = compare(calls, costs, peaks, cuda_clock, repeats)
    products = {name: {**row, "calls_in_step": used[name]} for name, row in found.items()}
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
    found: dict[str, dict[str, int]] = {name: {} for name in PRODUCTS}
    for form, step in steps.items():
        with _counting(products) as calls:
            step()
        for name in calls:
            found[name][form] = calls[name]
    return found


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
    found = products.column_product(q, k, sums, values, scale)
    return {
        "log_sum_exp": lambda: products.log_sum_exp(q, k, scale),
        "row_product": lambda: products.row_product(q, k, sums, weights, scale),
        "column_product": lambda: products.column_product(q, k, sums, values, scale),
        "rank_one_backward": lambda: products.rank_one_backward(
            q, k, sums, weights, values, found, scale
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
    found = {}
    for name, call in calls.items():
        seconds = clock(call, repeats)
        alone = {
            "bytes": costs[name]["bytes"] / peaks.bytes_per_second,
            "flops": costs[name]["flops"] / peaks.flops_per_second,
            "exponentials": costs[name]["exponentials"] / peaks.exponentials_per_second,
        }
        limit = max(alone, key=lambda kind: alone[kind])
        found[name] = {
            "seconds": seconds,
            **costs[name],
            "roofline_seconds": alone[limit],
            "limit": limit,
            "share_of_roofline": alone[limit] / seconds,
        }
    return found


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
