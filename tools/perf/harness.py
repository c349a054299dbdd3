"""Timing one implementation beside another on this machine, side by side and repeated."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from artifactnet.types import ArtifactNetError

Arrays = Sequence[npt.NDArray[Any]]
_PACKAGES = ("numpy", "torch", "pyarrow")


class Times(NamedTuple):
    """Seconds of one run. Only those of the processor are the same on a busy machine."""

    wall: float
    cpu: float  # of this process and those it has started and ended


def benchmark_metrics(
    images: int = 300,
    size: int = 1024,
    polygons: int = 6,
    boxes: int = 20,
    repeats: int = 5,
    workers: int = 1,
) -> dict[str, Any]:
    """Time instance scoring against the straightforward form.

    Args:
        images: number of images.
        size: side of each, pixels.
        polygons: annotated in each.
        boxes: predicted in each.
        repeats: how often each form is timed.
        workers: processes of the additional run with several.

    Returns:
        a report for ``json.dumps``: machine, setting, seconds and ratios to the baseline.

    Raises:
        ArtifactNetError: a number below 1, or the forms do not agree in their numbers.
    """
    from perf.metrics import STRAIGHTFORWARD, cases

    setting = {"images": images, "size": size, "polygons": polygons, "boxes": boxes}
    check_setting({**setting, "repeats": repeats, "workers": workers})
    times = time_side_by_side(cases(workers=workers, **setting), repeats)
    return {
        "benchmark": "metrics",
        "setting": {**setting, "repeats": repeats},
        "machine": machine(),
        "baseline": STRAIGHTFORWARD,
        "forms": {form: summary(times, form, STRAIGHTFORWARD) for form in times},
    }


def check_setting(setting: Mapping[str, int]) -> None:
    """Refuse a benchmark of nothing.

    Raises:
        ArtifactNetError: a number is below 1.
    """
    for what, value in setting.items():
        if value < 1:
            raise ArtifactNetError(f"{what} must be at least 1, not {value}")


def time_side_by_side(
    cases: Mapping[str, Callable[[], Arrays]], repeats: int, tolerance: float = 0.0
) -> dict[str, list[Times]]:
    """Time every case once in every repeat.

    Cases take turns, so that whatever else the machine does in a repeat meets all of them, and
    each repeat begins with another one. A first round is not timed: it warms caches, and its
    results are compared.

    Args:
        cases: name -> what to run; all must return equal arrays.
        repeats: at least 1.
        tolerance: by which the arrays may differ, as a share of the largest value.

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


def take_turns(
    cases: Mapping[str, Callable[[], object]], repeats: int, settle: bool = False
) -> dict[str, list[Times]]:
    """The timed part of `time_side_by_side`, for cases that have been run and compared.

    Args:
        cases: name -> what to run.
        repeats: at least 1.
        settle: run each case once more before every timed run of it, for the times of a model
            that is in use: caches and sleeping threads are as it leaves them, not as the case
            before did.
    """
    names = list(cases)
    times: dict[str, list[Times]] = {name: [] for name in names}
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            if settle:
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
    """Times of one form, and how many times faster than the baseline it was in each repeat.

    Args:
        times: of every form, see `time_side_by_side`.
        name: of the form.
        baseline: the form to compare with.
    """
    pairs = list(zip(times[baseline], times[name], strict=True))
    return {
        "seconds": spread([own.wall for own in times[name]]),
        "cpu_seconds": spread([own.cpu for own in times[name]]),
        "times_faster": spread([base.wall / own.wall for base, own in pairs]),
        "times_less_cpu": spread([base.cpu / own.cpu for base, own in pairs]),
    }


def machine() -> dict[str, Any]:
    """What a reader needs to know of the machine to judge the times."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        # OpenCV is one of two packages, of which either may be installed
        "packages": {**{name: version(name) for name in _PACKAGES}, "opencv": cv2.__version__},
        "opencv_threads": cv2.getNumThreads(),
    }


def _cpu_seconds() -> float:
    ended = os.times()  # its clock is coarse, so only for what no other one tells
    return time.process_time() + ended.children_user + ended.children_system


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            names = [line.partition(":")[2] for line in handle if line.startswith("model name")]
    except OSError:  # not Linux
        names = []
    return names[0].strip() if names else platform.processor() or platform.machine()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of repeated measurements."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
