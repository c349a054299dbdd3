"""``python tools/benchmark.py NAME``: the list of benchmarks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from artifactnet.cli import common_options, run

# name -> module of this package with `add_options` and `run`, and a line of help
BENCHMARKS = {
    "alignment-step": ("alignment_step", "time and memory that alignment adds to training"),
    "alignment-plot": ("alignment_plot", "draw reports of alignment-step together"),
    "explain-maps": ("maps", "time and memory of attention maps"),
    "loader": ("loader", "images per second of a run's training loader"),
    "metrics": ("metrics", "instance scoring"),
    "student": ("student", "students beside a large teacher: cost and time"),
    "fuzz-data": ("fuzz_data", "mutated data files: read or refused, in time"),
    "fuzz-images": ("fuzz_images", "mutated images: used or refused, in time"),
    "recompressed": ("recompressed", "verdicts on images that were saved again as JPEG"),
    "fakexplainer-training": ("fakexplainer_training", "both stages on a random Qwen2.5-VL"),
    "first-image": ("first_image", "a new process until its first answer, and each later one"),
    "fakexplainer-rewards": ("fakexplainer_rewards", "rewards, and reading of hostile texts"),
    "qreal-scores": ("qreal_scores", "answers about entities, from files to figures"),
    "robustness": ("robustness", "several models on damaged images beside the models alone"),
    "predict": ("predict", "a folder beside the model alone, and memory"),
    "ray": ("ray_engine", "an actor of the ray engine beside local predict"),
    "serving": ("serving", "a server beside the model alone, and many requests, some hostile"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark; exit codes as of the ``artifactnet`` command.

    Args:
        argv: arguments after the program's name; None takes them from ``sys.argv``.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    common = common_options()
    parser = argparse.ArgumentParser(
        prog="tools/benchmark.py",
        description="Time one implementation beside another on this machine.",
        allow_abbrev=False,
    )
    benchmarks = parser.add_subparsers(title="benchmarks", metavar="NAME", required=True)
    for name, (module, text) in BENCHMARKS.items():
        command = benchmarks.add_parser(name, parents=[common], help=text)
        if name in arguments[:1]:  # the other modules stay unloaded
            benchmark = import_module(f"perf.{module}")
            benchmark.add_options(command)
            command.set_defaults(run=benchmark.run)
    return run(parser, arguments)
