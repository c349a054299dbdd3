"""Time until a model answers its first image in a new process, and each image after that."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from artifactnet.cli.arguments import add_value, positive
from artifactnet.data.images import encode_jpeg
from artifactnet.data.sources import demo
from artifactnet.types import ArtifactNetError
from artifactnet.weights import DEFAULT
from perf.harness import (
    add_report_options,
    check_out,
    check_setting,
    make_report,
    spread,
    write_report,
)

BASELINE = "import torch"
_QUALITY = 90
# prints wall and processor seconds of each phase as one JSON line
_SCRIPT = """
import json, sys, time
def now(): return time.perf_counter(), time.process_time()
marks = [now()]
import torch
marks.append(now())
import artifactnet
threads, text = int(sys.argv[4]), sys.argv[5] or None
model = artifactnet.load_model(sys.argv[1], device="cpu", threads=threads, text=text)
marks.append(now())
for _ in range(int(sys.argv[3]) + 1):
    model.predict(sys.argv[2])
    marks.append(now())
print(json.dumps([[b - a for a, b in zip(*pair)] for pair in zip(marks, marks[1:])]))
"""
_TORCH = "import time; w, c = time.perf_counter(), time.process_time(); import torch"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    option = parser.add_argument
    option("--model", default=DEFAULT, metavar="PATH", help=f"as for predict ({DEFAULT})")
    add_value(parser, "--size", positive, 1000, "side of the image (1000)", metavar="PIXELS")
    add_value(parser, "--images", positive, 10, "timed after the first, in each process (10)")
    option("--text", choices=("generate", "template"), help="of a HEIE on a language model")
    add_value(parser, "--threads", positive, 1, "processor threads (1)")
    option("--core", type=int, metavar="K", help="pin to this core (Linux)")
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run, print and write the report."""
    check_out(args.out)
    report = benchmark_first_image(
        args.model, args.size, args.images, args.repeats, args.text, args.threads, args.core
    )
    write_report(args.out, report)
    for name, result in report["seconds"].items():
        wall, cpu = result["wall"], result["cpu"]
        print(
            f"{name:<28} {wall['median']:7.3f} s ({wall['min']:.3f} to {wall['max']:.3f})  "
            f"processor {cpu['median']:.3f} s"
        )
    return 0


def benchmark_first_image(
    model: str,
    size: int,
    images: int,
    repeats: int,
    text: str | None = None,
    threads: int = 1,
    core: int | None = None,
) -> dict[str, Any]:
    """Time fresh processes: Python alone, and the command line.

    Each process loads the model and predicts one JPEG of a packaged photograph ``images`` + 1
    times. `artifactnet predict` is timed as a whole, less a process that imports torch alone.

    Args:
        model: what ``predict --model`` takes.
        size: side of the image, pixels.
        images: predictions timed after the first.
        repeats: processes of each kind.
        text: ``generate`` or ``template``, of a HEIE on a language model; None: its own default.
        threads: processor threads of each process.
        core: the core to run on; None leaves it to the system.

    Returns:
        A report for ``json.dumps``; ``seconds`` maps each phase to the spread of wall and processor
        seconds: ``load model``, ``first image``, ``load and first image``, ``next image`` (the
        median of each process) and ``command line, beyond torch``.

    Raises:
        ArtifactNetError: a number below 1, or a process failed.
    """
    check_setting({"size": size, "images": images, "repeats": repeats, "threads": threads})
    phases: dict[str, list[Sequence[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        photo = Path(scratch) / "photo.jpg"
        photo.write_bytes(_photograph(size))
        script = ["-c", _SCRIPT, model, str(photo), str(images), str(threads), text or ""]
        command = ["-m", "artifactnet", "predict", str(photo), "--model", model, "--device", "cpu"]
        command += ["--threads", str(threads), "--no-heatmaps"]
        command += ["--out", str(Path(scratch) / "out"), *(["--text", text] if text else [])]
        for _ in range(repeats):
            torch, load, first, *rest = json.loads(_timed(script, threads, core)[0])
            steady = [statistics.median(each[k] for each in rest) for k in range(2)]
            whole = [load[k] + first[k] for k in range(2)]
            alone, line = (_timed(words, threads, core)[1] for words in (["-c", _TORCH], command))
            beyond = [line[k] - alone[k] for k in range(2)]
            for name, seconds in (
                (BASELINE, torch),
                ("load model", load),
                ("first image", first),
                ("load and first image", whole),
                ("next image", steady),
                ("command line, beyond torch", beyond),
            ):
                phases.setdefault(name, []).append(seconds)
    found = {
        name: {kind: spread(each[k] for each in values) for k, kind in enumerate(("wall", "cpu"))}
        for name, values in phases.items()
    }
    setting = {"model": model, "size": size, "images": images, "repeats": repeats}
    setting |= {"text": text, "threads": threads, "core": core}
    return make_report("first-image", setting, BASELINE, seconds=found)


def _photograph(size: int) -> bytes:
    """A JPEG of a packaged photograph, tiled to the size if it is smaller."""
    pixels = demo.read_photo(demo.CLASSIC[0])
    times = [-(-size // side) for side in pixels.shape[:2]]
    return encode_jpeg(np.tile(pixels, (*times, 1))[:size, :size], _QUALITY)


def _timed(words: Sequence[str], threads: int, core: int | None) -> tuple[str, tuple[float, float]]:
    """Standard output of a Python process, and its wall and processor seconds."""
    command = [sys.executable, *words]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    wall, before = time.perf_counter(), os.times()
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **limits}, check=False
    )
    seconds, after = time.perf_counter() - wall, os.times()
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ArtifactNetError(f"a process of the benchmark failed: {reason}")
    used = sum(after[k] - before[k] for k in (2, 3))
    return done.stdout, (seconds, used)
