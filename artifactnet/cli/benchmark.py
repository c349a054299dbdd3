"""``benchmark``: deprecated alias of ``python tools/benchmark.py``, which the wheel leaves out."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import artifactnet

SUMMARY = "deprecated: python tools/benchmark.py NAME, in a checkout of the repository"


def run_benchmark(args: argparse.Namespace) -> int:
    """Run ``benchmark``; returns the exit code."""
    script = Path(artifactnet.__file__).parents[1] / "tools" / "benchmark.py"
    if not script.is_file():
        from artifactnet.types import ArtifactNetError  # loads torch

        raise ArtifactNetError(
            "the benchmarks are not part of the installed package; run "
            "`python tools/benchmark.py NAME` in a checkout of the repository"
        )
    print(
        "artifactnet: deprecated: `artifactnet benchmark` will be removed in the next release; "
        f"run `python {script}`",
        file=sys.stderr,
    )
    return subprocess.run([sys.executable, str(script), *args.arguments]).returncode
