"""The products of `tiles` for NVIDIA GPUs in Triton.

Same names, arguments and results as in `tiles`; the GPU's programs are in `triton_programs`. They
were checked on a CPU through Triton's interpreter and compiled for compute capabilities 8.0 and
9.0; the block sizes were chosen by counting, not by measurement on a GPU. Results have a fixed
order of sums: two runs agree bit by bit. `products` decides whether this module, which needs
triton (part of PyTorch for Linux), is imported.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import triton
from torch import Tensor

from artifactnet.models.attention import triton_programs as programs

Kernel = Literal["sum", "query gradient", "key gradient"]


class Plan(NamedTuple):
    """How one kernel is launched."""

    outer: int  # rows of the result that one program makes
    inner: int  # rows of the other side that one step of its loop takes
    warps: int  # of one program
    stages: int  # of the loop's loads in flight


# (kernel, head size up to): plan
_HOPPER: dict[tuple[Kernel, int], Plan] = {
    # 80-88 registers; wgmma wants 64 rows per group of 4 warps
    ("sum", 64): Plan(128, 64, 8, 3),
    ("sum", 128): Plan(128, 64, 8, 3),
    # 126 registers leave room for two programs; a third stage takes 187
    ("query gradient", 64): Plan(128, 64, 8, 2),
    ("query gradient", 128): Plan(128, 64, 8, 2),
    # 116 registers; an inner block of 64 takes 163 and leaves room for one program only
    ("key gradient", 64): Plan(128, 32, 8, 2),
    # one program either way (160 or 211 registers): the larger tile
    ("key gradient", 128): Plan(128, 64, 8, 2),
}
_AMPERE: dict[tuple[Kernel, int], Plan] = {
    ("sum", 64): Plan(128, 64, 8, 3),  # 118 registers
    ("sum", 128): Plan(64, 64, 4, 2),  # an outer block of 128 takes 66 KiB and 157 registers
    ("query gradient", 64): Plan(128, 64, 8, 3),  # 128 registers
    ("query gradient", 128): Plan(64, 32, 4, 3),  # 168; an inner block of 64 takes all 255
    ("key gradient", 64): Plan(64, 32, 4, 3),  # 128; an outer block of 128 takes 137
    ("key gradient", 128): Plan(64, 32, 4, 3),  # 168
}

# no tensor cores at full float32: both operands pass through registers, larger blocks spill
_FULL_PRECISION: dict[tuple[Kernel, int], Plan] = {
    ("sum", 64): Plan(64, 32, 8, 2),
    ("sum", 128): Plan(32, 32, 8, 2),  # 64 rows spill in column_product for 9.0
    ("query gradient", 64): Plan(64, 32, 8, 2),
    ("query gradient", 128): Plan(64, 32, 8, 2),
    ("key gradient", 64): Plan(64, 32, 8, 2),
    ("key gradient", 128): Plan(64, 32, 8, 2),
}


def plan_for(kernel: Kernel, element_bytes: int, dim: int, capability: tuple[int, int]) -> Plan:
    """How to launch a kernel; "sum" is every product that ends in a vector.

    Args:
        element_bytes: of q and k, 2 or 4.
        dim: head size, at most 128.
        capability: of the GPU; those without their own table use Ampere's, which needs least.
    """
    table = _HOPPER if capability[0] == 9 else _AMPERE
    if element_bytes == 4:
        table = _FULL_PRECISION
    return table[kernel, 64 if dim <= 64 else 128]


LARGEST_HEAD = 128
_MOST_PAIRS = 65535  # programs along a grid's second axis
_LARGEST_FACTOR = 14  # log2; twice 2^14 still is a float16


def why_not(q: Tensor, k: Tensor) -> str | None:
    """Why these kernels cannot take q (B, H, M, d) and k (B, H, N, d); None if they can."""
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16) or q.dtype != k.dtype:
        return f"queries are {q.dtype} and keys {k.dtype}"
    if q.shape[-1] > LARGEST_HEAD:
        return f"head size {q.shape[-1]} is larger than {LARGEST_HEAD}"
    if q.shape[0] * q.shape[1] > _MOST_PAIRS:
        return f"{q.shape[0]} images of {q.shape[1]} heads are more than {_MOST_PAIRS} pairs"
    if _interpreted():
        return None
    if q.device.type != "cuda" or q.device != k.device:
        return f"queries are on {q.device} and keys on {k.device}"
    if torch.version.hip is not None:
        return "the GPU is not one of NVIDIA's"
    major, minor = torch.cuda.get_device_capability(q.device)
    if major < 8:
        return f"compute capability {major}.{minor} of the GPU is below 8.0"
    return None


def _interpreted() -> bool:
    """Whether Triton interprets on the CPU: TRITON_INTERPRET was 1 when it was imported."""
    return not isinstance(programs.row_product, triton.JITFunction)


class _Call:
    """What every kernel needs to know about q (B, H, M, d) and k (B, H, N, d)."""

    def __init__(self, q: Tensor, k: Tensor, scale: float) -> None:
        if _interpreted() and q.dtype == torch.bfloat16:
            q, k = q.float(), k.float()  # numpy has no such type: tl.dot would multiply bits
        self.q, self.k = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k))
        self.batch, self.heads, self.queries, self.dim = q.shape
        self.keys = k.shape[2]
        self.log2_scale = scale * math.log2(math.e)
        strides = self.q.stride()[:3] + self.k.stride()[:3]
        self.layout = (self.heads, self.queries, self.keys, *strides)

    def vectors(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """As the kernels read them: float32 without gaps."""
        return tuple(tensor.to(torch.float32).contiguous() for tensor in tensors)

    def run(self, kernel: triton.JITFunction, what: Kernel, rows: int, *arguments: object) -> None:
        """Launch one program per block of ``rows`` of the result, image and head.

        ``kernel`` takes q, k, then ``arguments``, then layout and block sizes.
        """
        on_gpu = self.q.is_cuda
        capability = torch.cuda.get_device_capability(self.q.device) if on_gpu else (0, 0)
        plan = plan_for(what, self.q.element_size(), self.dim, capability)
        grid = (triton.cdiv(rows, plan.outer), self.batch * self.heads)
        with torch.cuda.device_of(self.q):
            kernel[grid](
                self.q,
                self.k,
                *arguments,
                *self.layout,
                D=self.dim,
                BLOCK_D=max(16, triton.next_power_of_2(self.dim)),  # tl.dot takes no less
                OUTER=plan.outer,
                INNER=plan.inner,
                PRECISION="ieee",  # of float32; half types ignore it
                num_warps=plan.warps,
                num_stages=plan.stages,
                enable_fp_fusion=True,
            )


def log_sum_exp(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Natural log of sum_j exp(scale q_i . k_j), (B, H, M); see `tiles.log_sum_exp`."""
    call = _Call(q, k, scale)
    out = q.new_empty(q.shape[:3], dtype=torch.float32)
    call.run(programs.log_sum_exp, "sum", call.queries, out, call.log2_scale)
    return out


def row_product(q: Tensor, k: Tensor, lse: Tensor, weights: Tensor, scale: float) -> Tensor:
    """A row vector times the mean attention matrix, (B, N); see `tiles.row_product`."""
    call = _Call(q, k, scale)
    out = q.new_empty((call.batch, call.heads, call.keys), dtype=torch.float32)
    call.run(
        programs.row_product, "sum", call.keys, *call.vectors(lse, weights), out, call.log2_scale
    )
    return out.mean(dim=1)


def column_product(q: Tensor, k: Tensor, lse: Tensor, values: Tensor, scale: float) -> Tensor:
    """Every head's attention matrix times a column, (B, H, M); see `tiles.column_product`."""
    call = _Call(q, k, scale)
    out = q.new_empty(q.shape[:3], dtype=torch.float32)
    call.run(
        programs.column_product,
        "sum",
        call.queries,
        *call.vectors(lse, values),
        out,
        call.log2_scale,
    )
    return out


def rank_one_backward(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    weights: Tensor,
    values: Tensor,
    products: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of `row_product` with respect to q and k; see `tiles.rank_one_backward`.

    float16 holds nothing below 6e-8, and P times a weight times a gradient is soon smaller. So
    weights and values are divided by their largest size in the image and P is multiplied by
    about N before the second matrix product; the float32 sums are scaled back.
    """
    call = _Call(q, k, scale)
    lse, weights, values, products = call.vectors(lse, weights, values, products)
    weight_size, value_size = _largest(weights), _largest(values)
    log2_size = min(call.keys.bit_length() - 1, _LARGEST_FACTOR)
    gain = weight_size * value_size * (scale / call.heads * 2.0**-log2_size)
    arguments = (
        lse,
        weights / weight_size[:, None],
        values / value_size[:, None],
        products / value_size[:, None, None],
        gain,
    )
    numbers = (call.log2_scale, float(log2_size))
    d_q = q.new_empty(q.shape, dtype=call.q.dtype)
    d_k = k.new_empty(k.shape, dtype=call.k.dtype)
    call.run(programs.query_gradient, "query gradient", call.queries, *arguments, d_q, *numbers)
    call.run(programs.key_gradient, "key gradient", call.keys, *arguments, d_k, *numbers)
    return d_q.to(q.dtype), d_k.to(k.dtype)


def _largest(vectors: Tensor) -> Tensor:
    """Largest size in each row of (B, N), 1 where all are zero."""
    size = vectors.abs().amax(dim=1)
    return torch.where(size == 0, 1.0, size)
