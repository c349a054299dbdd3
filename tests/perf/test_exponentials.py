"""The kernel that shows a GPU's rate of exponentials computes as many as it claims."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton comes with PyTorch for Linux only")

from perf import exponentials as module  # noqa: E402

# triton decides when it is imported whether it interprets, hence a process of its own
TOOLS = Path(__file__).parent.parent.parent / "tools"
INTERPRETED = """
import torch
from perf import exponentials as module
values = torch.rand(2 * module._BLOCK)
expected = values.double()
for _ in range(3):
    expected = torch.exp2(-expected)
module.raise_powers(values, 3)
difference = (values - expected).abs().max()
assert difference < 1e-6, difference
print("equal")
"""


def test_every_value_goes_through_all_rounds():
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(TOOLS)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "equal\n", done.stderr[-3000:]


@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1"
    or tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3),
    reason="needs Triton 3.3 as a compiler",
)
def test_values_stay_in_registers(tmp_path, monkeypatch):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    signature = {"values": "*fp32", "ROUNDS": "constexpr", "BLOCK": "constexpr"}
    constants = {"ROUNDS": module._ROUNDS, "BLOCK": module._BLOCK}
    source = ASTSource(module.repeat_exp2, signature, constants, {(0,): [["tt.divisibility", 16]]})
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    loop = re.search(r"^(\$L__BB0_\d+):(.*?)bra\s+\1;", ptx, re.DOTALL | re.MULTILINE)
    assert loop, ptx
    # a thread's values, times what the compiler unrolls: nothing but exponentials in between
    assert loop[2].count("ex2.approx") >= module._BLOCK // 128
    assert not re.search(r"\b(ld|st)\.(global|shared|local)", loop[2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_computes_more_than_memory_would_let_it():
    from perf.roofline import cuda_clock

    work = module.exponentials_in_registers()
    rate = work.exponentials / cuda_clock(work.run, 5)
    values = torch.rand(1 << 27, device="cuda")
    elementwise = len(values) / cuda_clock(lambda: torch.exp2(values), 5)
    assert rate > 2 * elementwise
