"""Memory that is freed and taken again costs no page faults."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from artifactnet.runs.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(4_000_000, np.float32)  # 16 MB, written and freed
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory() if sys.argv[1] == "keep" else False
faults()
print(kept, faults())
"""


def run(how: str, **environment: str) -> tuple[bool, int]:
    variables = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", SCRIPT, how]
    found = subprocess.run(
        command, env=variables | environment, capture_output=True, text=True, check=True
    )
    kept, faults = found.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone")
def test_it_is_not_returned_to_the_kernel():
    kept, faults = run("keep")
    assert kept
    assert faults < 1000  # 20 times 16 MB are 80,000 pages of 4 KB


def test_an_environment_variable_says_otherwise():
    assert not run("keep", MALLOC_ARENA_MAX="4")[0]
