"""Memory of fresh processes, and what happens where it runs out."""

import os
import signal
import sys

import pytest
import torch
from perf.harness import check_setting
from perf.peak_memory import fresh_peak, limited_memory, out_of_memory

from artifactnet.types import ArtifactNetError

HUGE = 1 << 48  # float32 values: more than any machine has
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@pytest.mark.slow
def test_a_fresh_process_holds_what_it_makes_and_nothing_of_ours():
    held = torch.ones(256 << 18)  # 256 MB, in this process
    small, large = fresh_peak(torch.ones, 1), fresh_peak(torch.ones, 128 << 18)
    assert held.sum() == 256 << 18
    assert 120 << 20 < large - small < 200 << 20


@pytest.mark.usefixtures("preloaded")
def test_a_process_that_runs_out_of_memory_or_is_killed():
    assert fresh_peak(torch.ones, HUGE) is None
    if sys.platform == "linux":
        assert fresh_peak(signal.raise_signal, signal.SIGKILL) is None


@pytest.mark.usefixtures("preloaded")
def test_an_error_in_the_process_is_raised():
    with pytest.raises(ArtifactNetError, match="^size must be at least 1, not 0$"):
        fresh_peak(check_setting, {"size": 0})
    with pytest.raises(ArtifactNetError, match="exit code 3"):
        fresh_peak(os._exit, 3)


@linux
def test_the_limit_is_that_of_the_machine_and_goes_away():
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limited_memory():
        torch.ones(1 << 20)
        with pytest.raises(RuntimeError) as info:
            # not touched, so without the limit most systems would promise it
            torch.empty(_machine_bytes(), dtype=torch.uint8)
        assert out_of_memory(info.value)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_are_about_memory(error, expected):
    assert out_of_memory(error) is expected
