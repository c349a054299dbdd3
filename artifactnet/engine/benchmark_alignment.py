"""What attention alignment adds to a training step, in time and in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from artifactnet.engine.benchmark import Times, check_setting, machine, spread, take_turns
from artifactnet.engine.benchmark_forms import FLOOR, FORMS, baseline_of
from artifactnet.engine.benchmark_memory import fit_lines, peak_memory
from artifactnet.engine.benchmark_roofline import roofline
from artifactnet.engine.benchmark_step import Figures, StepSetting, TrainingStep
from artifactnet.engine.peak_memory import MEGABYTE, limited_memory, out_of_memory
from artifactnet.types import ArtifactNetError

DEVICES = ("auto", "cpu", "cuda")
# How far forms that compute the same may be apart: loss and map (as a share of its largest
# value), and norm of the gradient. Autocast rounds the baselines' matrices, the library's row is
# float32 throughout.
TOLERANCES = {"float32": (1e-4, 1e-3), "bfloat16": (5e-2, 1e-1), "float16": (1e-2, 5e-2)}
# dO has gone through all blocks twice: ViT-B/14 at 224 px is 1.6e-4 from float64 in either form
_BY_GRADIENT = {"float32": (1e-3, 1e-3)}
_KERNEL_REPEATS = 20


def benchmark_alignment(
    setting: StepSetting,
    sizes: Sequence[int] = (518,),
    memory_sizes: Sequence[int] = (),
    forms: Sequence[str] = (),
    repeats: int = 5,
    memory: bool = True,
) -> dict[str, Any]:
    """Time whole training steps with alignment beside one without, and measure their memory.

    A step is forward, BCE and alignment (weight 1) to a fixed random target, backward, AdamW and
    ``zero_grad``, of a model with random weights. Before they are timed, forms that compute the
    same thing are compared.

    Args:
        setting: model, batch, device and method; its ``size`` is not used.
        sizes: sides of the images at which steps are timed, pixels.
        memory_sizes: further sides at which peak memory alone is measured; from three sides on,
            a line is fitted to extra memory over tokens.
        forms: what to compare, see `benchmark_forms.FORMS`; empty is all. The floor is always in.
        repeats: how often each form is timed.
        memory: also measure memory at ``sizes``.

    Returns:
        A report for ``json.dumps``.

    Raises:
        ArtifactNetError: an unknown name, a number below 1, a model without rollout, or forms
            that do not agree.
    """
    setting = _checked(setting, [*sizes, *memory_sizes], repeats)
    chosen = _chosen(setting.method, forms)
    at = {size: dataclasses.replace(setting, size=size) for size in sorted({*sizes, *memory_sizes})}
    tokens = {size: TrainingStep(at[size]).tokens for size in at}  # a mistake shows at once
    peaks = {size: peak_memory(at[size], chosen) for size in at if memory or size in memory_sizes}
    rows = [{"size": size, "tokens": tokens[size], "forms": peaks[size]} for size in peaks]
    timed = []
    for size in sorted({*sizes}):
        fitting = [form for form in chosen if size not in peaks or peaks[size][form] is not None]
        row = {"size": size, "tokens": tokens[size]}
        timed.append({**row, **_timed(at[size], chosen, fitting, repeats)})
    shown = {key: value for key, value in dataclasses.asdict(setting).items() if key != "size"}
    return {
        "benchmark": "alignment-step",
        "setting": {**shown, "repeats": repeats, "tolerances": list(_tolerances(setting))},
        "machine": {**machine(), "torch_threads": torch.get_num_threads(), **_gpu(setting)},
        "floor": FLOOR,
        "baseline": baseline_of(setting.method),
        "forms": {form: FORMS[setting.method][form].text for form in chosen},
        "steps": timed,
        "memory": rows,
        "memory_fit": fit_lines(rows, chosen),
    }


def _checked(setting: StepSetting, sizes: Sequence[int], repeats: int) -> StepSetting:
    """The setting with its device, where all of it makes sense."""
    numbers = {"batch_size": setting.batch_size, "every": setting.every, "repeats": repeats}
    check_setting({**numbers, "size": min(sizes, default=1)})
    for what, value, known in (
        ("method", setting.method, FORMS),
        ("dtype", setting.dtype, TOLERANCES),
        ("device", setting.device, DEVICES),
    ):
        if value not in known:
            raise ArtifactNetError(f"{what} must be one of {', '.join(known)}, not {value!r}")
    there = torch.cuda.is_available()
    if setting.device == "cuda" and not there:
        raise ArtifactNetError("--device cuda: torch finds no GPU that it can use; try cpu")
    device = setting.device
    if device == "auto":
        device = "cuda" if there else "cpu"
    return dataclasses.replace(setting, device=device)


def _chosen(method: str, forms: Sequence[str]) -> list[str]:
    """Forms in their own order, the floor first."""
    known = FORMS[method]
    unknown = [form for form in forms if form not in known]
    if unknown:
        raise ArtifactNetError(
            f"--forms: {method} has no form {unknown[0]!r}; it has: {', '.join(known)}"
        )
    return [form for form in known if not forms or form in forms or form == FLOOR]


def _timed(
    setting: StepSetting, forms: Sequence[str], fitting: Sequence[str], repeats: int
) -> dict[str, Any]:
    """Times of all forms at one size; those that ran out of memory say so."""
    step = TrainingStep(setting)
    on_gpu = setting.device == "cuda"
    with nullcontext() if on_gpu else limited_memory():
        figures = _figures(step, fitting)
        if FLOOR not in figures:
            raise ArtifactNetError(
                f"alignment-step: at {setting.size} px not even the step without alignment fits "
                "into memory; try a smaller size or batch"
            )
        _check_equal(setting, figures)
        times = take_turns({form: partial(step.run, form) for form in figures}, repeats)
    found: dict[str, Any] = {}
    for form in forms:
        found[form] = {"out_of_memory": form not in times}
        if form in times:
            found[form].update(_step_summary(times, form, setting))
        figure = figures.get(form)
        if figure is not None:
            found[form]["alignment_loss"] = figure.loss
            found[form]["alignment_gradient_norm"] = figure.gradient_norm
    kernels = {}
    if on_gpu:
        steps = {form: partial(step.run, form) for form in times}
        kernels["roofline"] = roofline(step.attention_shape(), step.dtype, _KERNEL_REPEATS, steps)
    return {"forms": found, **kernels}


def _figures(step: TrainingStep, forms: Sequence[str]) -> dict[str, Figures | None]:
    """A first, untimed step of every form that memory suffices for, and what it computes."""
    figures: dict[str, Figures | None] = {}
    for form in forms:
        try:
            step.run(form)  # without it the first form alone would meet cold caches
            aligned = FORMS[step.setting.method][form].gradient is not None
            figures[form] = step.figures(form) if aligned else None
        except Exception as error:
            if not out_of_memory(error):
                raise
        step.release()
    return figures


def _check_equal(setting: StepSetting, figures: Mapping[str, Figures | None]) -> None:
    """Refuse to time forms that differ in what they claim to share.

    All have the same map and loss; those with the same `Form.gradient` its gradient too.
    """
    value, slope = _tolerances(setting)
    aligned = {form: figure for form, figure in figures.items() if figure is not None}
    firsts: dict[str | None, str] = {}
    for form, own in aligned.items():
        other = next(iter(aligned))
        first = aligned[other]
        largest = float(first.heatmap.abs().max())
        apart = {
            "alignment loss": (abs(own.loss - first.loss), value * abs(first.loss)),
            "map": (float((own.heatmap - first.heatmap).abs().max()), value * largest),
        }
        same = firsts.setdefault(FORMS[setting.method][form].gradient, form)
        norm = aligned[same].gradient_norm
        apart["gradient norm"] = (abs(own.gradient_norm - norm), slope * norm)
        for what, (difference, allowed) in apart.items():
            if not difference <= allowed:  # NaN is not, either
                beside = same if what == "gradient norm" else other
                raise ArtifactNetError(
                    f"alignment-step: {form!r} and {beside!r} do not agree: {what} differs by "
                    f"{difference:.3g}, allowed in {setting.dtype} is {allowed:.3g}"
                )


def _step_summary(
    times: Mapping[str, Sequence[Times]], form: str, setting: StepSetting
) -> dict[str, Any]:
    """Seconds of a step, ratio to the floor in each repeat, and what that means per second."""
    own, floor = times[form], times[FLOOR]
    seconds = spread([time.wall / setting.every for time in own])
    pairs = list(zip(own, floor, strict=True))
    return {
        "seconds": seconds,
        "cpu_seconds": spread([time.cpu / setting.every for time in own]),
        "ratio": spread([a.wall / b.wall for a, b in pairs]),
        "cpu_ratio": spread([a.cpu / b.cpu for a, b in pairs]),
        "steps_per_second": 1 / seconds["median"],
        "images_per_second": setting.batch_size / seconds["median"],
    }


def _gpu(setting: StepSetting) -> dict[str, Any]:
    if setting.device != "cuda":
        return {}
    facts = torch.cuda.get_device_properties(0)
    return {
        "gpu": facts.name,
        "gpu_megabytes": facts.total_memory / MEGABYTE,
        "compute_capability": f"{facts.major}.{facts.minor}",
        "cuda": torch.version.cuda,
    }


def _tolerances(setting: StepSetting) -> tuple[float, float]:
    """Of loss and map, and of the gradient's norm."""
    own = TOLERANCES[setting.dtype]
    return _BY_GRADIENT.get(setting.dtype, own) if setting.method == "gradient_rollout" else own
