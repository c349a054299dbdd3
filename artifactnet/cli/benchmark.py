"""``benchmark``: deprecated alias of ``python tools/benchmark.py``, which the wheel leaves out."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import artifactnet
from artifactnet.cli.arguments import Commands


def add_benchmark(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "benchmark",
        parents=[common],
        help="deprecated: python tools/benchmark.py NAME, in a checkout of the repository",
        add_help=False,
        prefix_chars="\0",  # every argument belongs to the script
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    parser.set_defaults(run=_benchmark)


def _benchmark(args: argparse.Namespace) -> int:
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
