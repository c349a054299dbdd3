"""Peak memory of a training step in each form, and whether it grows with N or with N squared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from artifactnet.engine.benchmark_forms import FLOOR, baseline_of
from artifactnet.engine.benchmark_step import StepSetting, TrainingStep
from artifactnet.engine.peak_memory import MEGABYTE, cuda_peak, fresh_peak

_STEPS = 2  # the second has the optimizer's state from its start
FEWEST_SIZES = 3  # of a line that could fail to be one


def peak_memory(setting: StepSetting, forms: Sequence[str]) -> dict[str, Any]:
    """Peak memory of a training step in every form at one size.

    Args:
        setting: of the step; its ``every`` is taken as 1.
        forms: the floor and others.

    Returns:
        For each form ``peak_megabytes``, ``extra_megabytes`` beyond the floor's, and
        ``share_of_baseline``, that of what the baseline adds (None where it was not measured or
        adds nothing); or None where memory ran out.
    """
    peaks = _peaks(dataclasses.replace(setting, every=1), forms)
    floor, baseline = peaks[FLOOR], peaks.get(baseline_of(setting.method))
    added = baseline - floor if baseline is not None and floor is not None else 0
    found: dict[str, Any] = dict.fromkeys(forms)
    for form, peak in peaks.items():
        if peak is not None and floor is not None:
            found[form] = {
                "peak_megabytes": peak / MEGABYTE,
                "extra_megabytes": (peak - floor) / MEGABYTE,
                "share_of_baseline": (peak - floor) / added if added > 0 else None,
            }
    return found


def _peaks(setting: StepSetting, forms: Sequence[str]) -> dict[str, int | None]:
    """Bytes: of a fresh process each, or on a GPU of what torch holds there."""
    if setting.device != "cuda":
        return {form: fresh_peak(take_steps, setting, form) for form in forms}
    step, peaks = TrainingStep(setting), {}
    for form in forms:
        peaks[form] = cuda_peak(partial(_steps, step, form))
        step.release()
    return peaks


def take_steps(setting: StepSetting, form: str) -> None:
    """Build what a setting describes and take as many steps as memory needs to reach its peak.

    Args:
        setting: see `StepSetting`.
        form: one of `FORMS`.
    """
    _steps(TrainingStep(setting), form)


def _steps(step: TrainingStep, form: str) -> None:
    for _ in range(_STEPS):
        step.run(form)


def fit_lines(rows: Sequence[Mapping[str, Any]], forms: Sequence[str]) -> dict[str, Any]:
    """Lines through extra memory over tokens, of forms that were measured at enough sizes.

    Args:
        rows: ``tokens`` and, under ``forms``, what `peak_memory` found; one per size.
        forms: the floor and others.

    Returns:
        form -> `fit_line`.
    """
    fits = {}
    for form in forms:
        points = [
            (row["tokens"], row["forms"][form]["extra_megabytes"])
            for row in rows
            if row["forms"][form] is not None
        ]
        if form != FLOOR and len({tokens for tokens, _ in points}) >= FEWEST_SIZES:
            fits[form] = fit_line(points)
    return fits


def fit_line(points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Least squares: megabytes = intercept + slope * N.

    Args:
        points: N and megabytes, at least two N.

    Returns:
        ``intercept`` and ``slope``; ``r_squared``, None where all values are the same;
        ``max_relative_residual``: largest distance from the line, as a share of the largest
        value, None where that is 0; ``points``, their number.
    """
    tokens, extra = np.array(points, dtype=np.float64).T
    slope, intercept = np.polyfit(tokens, extra, 1)
    residual = extra - (intercept + slope * tokens)
    total, largest = float(((extra - extra.mean()) ** 2).sum()), float(np.abs(extra).max())
    return {
        "intercept_megabytes": float(intercept),
        "megabytes_per_token": float(slope),
        "r_squared": 1 - float((residual**2).sum()) / total if total else None,
        "max_relative_residual": float(np.abs(residual).max()) / largest if largest else None,
        "points": len(points),
    }
