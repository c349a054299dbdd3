"""Block sizes of the Triton kernels: a fixed table, so that two runs do the same arithmetic.

The sizes were chosen by counting, not by timing on a GPU: registers, spills and shared memory as
Triton 3.9's compiler reports them for compute capabilities 8.0 and 9.0 at head sizes 32 to 128.
Wanted, in this order: no spilled registers (reached everywhere); at least two stages of the
loop's operand within 99 KiB (the smallest shared memory of the 8.x and 12.x cards); 16 warps on a
multiprocessor (8 for the gradients of heads above 64), because exponentials, 16 a clock, limit
these kernels as much as the tensor cores do and warps must overlap the two; the largest outer
block, because the inner side is read again for every outer block.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kernel = Literal["sum", "query gradient", "key gradient"]


class Plan(NamedTuple):
    """How one kernel is launched.

    Attributes:
        outer: rows of the result that one program makes.
        inner: rows of the other side that one step of its loop takes.
        warps: of one program.
        stages: of the loop's loads in flight.
    """

    outer: int
    inner: int
    warps: int
    stages: int


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
    """How to launch a kernel.

    Args:
        kernel: what it computes; "sum" is every product that ends in a vector.
        element_bytes: of q and k, 2 or 4.
        dim: head size, at most 128.
        capability: compute capability of the GPU; those without a table of their own take
            Ampere's, which needs least.
    """
    table = _HOPPER if capability[0] == 9 else _AMPERE
    if element_bytes == 4:
        table = _FULL_PRECISION
    return table[kernel, 64 if dim <= 64 else 128]
