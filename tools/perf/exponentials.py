"""A Triton kernel that is bound by exponentials, to measure a GPU's rate of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

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
