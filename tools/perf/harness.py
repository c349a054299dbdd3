"""Harness of all benchmarks: paired runs in one process, ratios to a baseline, a JSON report.

A benchmark is a module with ``add_options(parser)`` and ``run(args)``; `perf.cli` lists them.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from artifactnet.benchmarks.xaigd.tables import check_outputs
from artifactnet.cli.arguments import add_value, positive
from artifactnet.files import write_json
from artifactnet.types import ArtifactNetError

Arrays = Sequence[npt.NDArray[Any]]
Cases = Mapping[str, Callable[[], object]]
_PACKAGES = ("numpy", "torch", "pyarrow")


class Times(NamedTuple):
    """Seconds of one run. Only processor time is reproducible on a busy machine."""

    wall: float
    cpu: float  # of this process and of ended child processes


def check_setting(setting: Mapping[str, int]) -> None:
    """Refuse settings below 1.

    Raises:
        ArtifactNetError: a number is below 1.
    """
    for what, value in setting.items():
        if value < 1:
            raise ArtifactNetError(f"{what} must be at least 1, not {value}")


def check_workers(workers: Sequence[int]) -> None:
    """Refuse an empty list of worker counts, and counts below 0.

    Raises:
        ArtifactNetError: see above.
    """
    if not workers or min(workers) < 0:
        raise ArtifactNetError(f"workers must be 0 or more, not {list(workers)}")


def time_side_by_side(
    cases: Mapping[str, Callable[[], Arrays]], repeats: int, tolerance: float = 0.0
) -> dict[str, list[Times]]:
    """Run every case once, compare their results, then time them by `take_turns`.

    Args:
        cases: name -> function; all must return equal arrays.
        repeats: at least 1.
        tolerance: largest difference of two results, as a share of the largest value.

    Raises:
        ArtifactNetError: results differ.
    """
    names = list(cases)
    results = {name: cases[name]() for name in names}
    for name in names[1:]:
        pairs = zip(results[names[0]], results[name], strict=True)
        if not all(_equal(first, second, tolerance) for first, second in pairs):
            raise ArtifactNetError(f"{name!r} and {names[0]!r} do not give the same numbers")
    return take_turns(cases, repeats)


def take_turns(cases: Cases, repeats: int, warm_up: bool = False) -> dict[str, list[Times]]:
    """Time every case once in every repeat.

    Cases take turns, so that other load on the machine affects all of them, and every repeat
    starts with another one.

    Args:
        cases: name -> function; each has run once already.
        repeats: at least 1.
        warm_up: run each case once more, untimed, before every timed run of it, for the times of
            a model in continuous use: caches and sleeping threads are as it left them itself.
    """
    names = list(cases)
    times: dict[str, list[Times]] = {name: [] for name in names}
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            if warm_up:
                cases[name]()
            wall, cpu = time.perf_counter(), _cpu_seconds()
            cases[name]()
            times[name].append(Times(time.perf_counter() - wall, _cpu_seconds() - cpu))
    return times


def _equal(first: npt.NDArray[Any], second: npt.NDArray[Any], tolerance: float) -> bool:
    if not tolerance or first.shape != second.shape:
        return np.array_equal(first, second)
    return bool(np.abs(first - second).max() <= tolerance * np.abs(first).max())


def summary(times: Mapping[str, Sequence[Times]], name: str, baseline: str) -> dict[str, Any]:
    """Times of one form, and its speed-up over the baseline in each repeat.

    Args:
        times: of every form, see `take_turns`.
        name: of the form.
        baseline: the form to compare with.
    """
    pairs = list(zip(times[baseline], times[name], strict=True))
    return {
        "seconds": spread(own.wall for own in times[name]),
        "cpu_seconds": spread(own.cpu for own in times[name]),
        "times_faster": spread(base.wall / own.wall for base, own in pairs),
        "times_less_cpu": spread(base.cpu / own.cpu for base, own in pairs),
    }


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, smallest and largest of repeated measurements."""
    numbers = list(values)
    return {"median": statistics.median(numbers), "min": min(numbers), "max": max(numbers)}


def make_report(
    name: str, setting: Mapping[str, Any], baseline: str, **results: Any
) -> dict[str, Any]:
    """A report for ``json.dumps``: ``benchmark``, ``setting``, ``machine``, ``baseline``, results.

    Args:
        name: of the benchmark.
        setting: all options of the benchmark.
        baseline: the form that the others are compared with.
        results: of this benchmark.
    """
    return {
        "benchmark": name,
        "setting": dict(setting),
        "machine": machine(),
        "baseline": baseline,
        **results,
    }


def machine() -> dict[str, Any]:
    """The machine and its packages."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        # OpenCV is distributed as one of two packages
        "packages": {**{name: version(name) for name in _PACKAGES}, "opencv": cv2.__version__},
        "opencv_threads": cv2.getNumThreads(),
        "torch_threads": torch.get_num_threads(),
    }


def _cpu_seconds() -> float:
    ended = os.times()  # a coarse clock, used only for child processes
    return time.process_time() + ended.children_user + ended.children_system


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            names = [line.partition(":")[2] for line in handle if line.startswith("model name")]
    except OSError:  # not Linux
        names = []
    return names[0].strip() if names else platform.processor() or platform.machine()


def add_report_options(parser: argparse.ArgumentParser, repeats: int = 5) -> None:
    """``--repeats`` and ``--out``.

    Args:
        parser: of a benchmark.
        repeats: the default.
    """
    add_value(parser, "--repeats", positive, repeats, f"of each form ({repeats})")
    parser.add_argument("--out", metavar="JSON", help="file for the report")


def check_out(*outs: str | None) -> None:
    """Refuse output paths that cannot be written, before the long work.

    Raises:
        ArtifactNetError: a path is a folder or lies below a file.
    """
    for out in outs:
        if out:
            check_outputs(out)


def write_report(out: str | None, report: dict[str, Any]) -> None:
    """Write a report if ``--out`` was given.

    Raises:
        OSError: the file cannot be written.
    """
    if out:
        write_json(out, report)


def print_forms(forms: Mapping[str, Any], indent: str = "") -> None:
    """Print seconds and ratios.

    Args:
        forms: name -> `summary`.
        indent: before every line.
    """
    for form, result in forms.items():
        print(f"{indent}{form}")
        for key, unit in (("seconds", "s"), ("times_faster", "x"), ("times_less_cpu", "x")):
            spread = result[key]
            print(
                f"{indent}  {key.replace('_', ' '):<15} {spread['median']:8.3f} {unit} "
                f"({spread['min']:.3f} to {spread['max']:.3f})"
            )
