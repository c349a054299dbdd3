import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton comes with PyTorch for Linux only")

from artifactnet.models.attention import triton_kernels, triton_programs  # noqa: E402
from artifactnet.models.attention.triton_kernels import plan_for  # noqa: E402

ROOT = Path(__file__).parents[3]
CHECKS = Path(__file__).with_name("triton_checks.py")
SMALLEST_SHARED_MEMORY = 99 * 1024  # a program's, of compute capability 8.6, 8.9 and 12.0
KERNELS = dict.fromkeys(["log_sum_exp", "row_product", "column_product"], "sum")
KERNELS |= {"query_gradient": "query gradient", "key_gradient": "key gradient"}


def run_checks(**environment: str) -> None:
    """All of triton_checks.py in a fresh process; none may fail or be skipped."""
    dropped = ("TRITON_INTERPRET", "PYTEST_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(dropped)} | environment
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", str(CHECKS)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    summary = done.stdout.strip().splitlines()[-1]
    assert re.match(r"\d\d passed", summary), summary
    assert "skipped" not in summary


def test_kernels_in_the_interpreter():
    run_checks(TRITON_INTERPRET="1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_kernels_on_the_gpu():
    run_checks()


def signature_of(name: str, dtype: str) -> dict[str, str]:
    """Argument -> type, as Triton's compiler wants it."""
    known = {"q": f"*{dtype}", "k": f"*{dtype}", "log2_scale": "fp32", "log2_size": "fp32"}
    vectors = ("lse", "weights", "values", "products", "gain")
    known |= dict.fromkeys(vectors, "*fp32")
    known["out"] = f"*{dtype}" if name.endswith("gradient") else "*fp32"
    return {
        argument: "constexpr" if argument.isupper() else known.get(argument, "i32")
        for argument in getattr(triton_programs, name).arg_names
    }


def compile_for(name: str, capability: int, dtype: str, dim: int):
    """One kernel, compiled for a GPU that need not be there."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    element_bytes = 4 if dtype == "fp32" else 2
    plan = plan_for(KERNELS[name], element_bytes, dim, divmod(capability, 10))
    blocks = {"OUTER": plan.outer, "INNER": plan.inner, "PRECISION": "ieee"}
    constants = {"D": dim, "BLOCK_D": triton.next_power_of_2(dim), **blocks}
    signature = signature_of(name, dtype)
    aligned = ("*", "i32")  # pointers and strides of any real model are multiples of 16
    hints = {
        (place,): [["tt.divisibility", 16]]
        for place, (argument, kind) in enumerate(signature.items())
        if kind.startswith(aligned) and argument not in ("heads", "queries", "keys", "gain")
    }
    source = ASTSource(getattr(triton_programs, name), signature, constants, hints)
    options = {"num_warps": plan.warps, "num_stages": plan.stages, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


slow = pytest.mark.slow
needs_compiler = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1"
    or tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3),
    reason="needs Triton 3.3 as a compiler",
)
TARGETS = [(80, "fp16", 80), (90, "fp16", 80)]  # head size 80 has the blocks of 128
MORE = [(c, *kind) for c in (90, 120) for kind in (("bf16", 64), ("fp32", 128))]


@needs_compiler
@pytest.mark.parametrize(
    ("capability", "dtype", "dim"), TARGETS + [pytest.param(*x, marks=slow) for x in MORE]
)
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_compile_for_absent_gpus(name, capability, dtype, dim, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiled = compile_for(name, capability, dtype, dim)
    assert compiled.metadata.shared <= SMALLEST_SHARED_MEMORY
    tensor_cores = "wgmma" if capability == 90 else "mma.sync"
    assert (tensor_cores in compiled.asm["ptx"]) == (dtype != "fp32")
    assert not re.search(r"\b(atom|red)\.", compiled.asm["ptx"]), "sums in no fixed order"


@pytest.fixture
def gpu(monkeypatch):
    """A GPU to ask about: set its compute capability."""
    state = SimpleNamespace(capability=(8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: state.capability)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(triton_kernels, "_interpreted", lambda: False)
    return state


def tensor(dtype=torch.float16, shape=(2, 12, 257, 64), device="cuda:0"):
    return SimpleNamespace(dtype=dtype, shape=shape, device=torch.device(device))


@pytest.mark.parametrize(
    ("q", "k", "reason"),
    [
        (tensor(torch.float64), tensor(torch.float64), "float64"),
        (tensor(), tensor(torch.bfloat16), "bfloat16"),
        (tensor(shape=(2, 12, 257, 160)), tensor(shape=(2, 12, 257, 160)), "head size 160"),
        (tensor(shape=(8192, 8, 257, 64)), tensor(shape=(8192, 8, 257, 64)), "65535 pairs"),
        (tensor(device="cpu"), tensor(device="cpu"), "queries are on cpu"),
        (tensor(), tensor(device="cuda:1"), "cuda:1"),
    ],
)
def test_what_is_refused_says_why(gpu, q, k, reason):
    assert reason in triton_kernels.why_not(q, k)


def test_old_and_foreign_gpus_are_refused(gpu, monkeypatch):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert triton_kernels.why_not(tensor(dtype), tensor(dtype)) is None
    gpu.capability = (7, 5)
    assert "7.5" in triton_kernels.why_not(tensor(), tensor())
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert "NVIDIA" in triton_kernels.why_not(tensor(), tensor())
