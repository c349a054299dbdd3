"""``merge-adapters``: a fine-tuned vision-language model as one checkpoint for transformers."""

from __future__ import annotations

import argparse


def add_merge_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``merge-adapters``."""
    option = parser.add_argument
    option("folder", metavar="RUN", help="folder of a HEIE, a FakeXplainer, a model of Q-Real, ...")
    option("out", metavar="OUT", help="folder to write, for mllm.base or a server")


def run_merge(args: argparse.Namespace) -> int:
    """Run ``merge-adapters``; returns the exit code."""
    from artifactnet.vlm.merge import merge_run

    out = merge_run(args.folder, args.out)
    print(f"{out}: a checkpoint for transformers. Use it as mllm.base={out}")
    return 0
