"""What attention alignment adds to a training step, in time and in memory."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from artifactnet.cli.arguments import add_value, names, positive
from artifactnet.config import AttentionConfig, ModelConfig, OptimConfig
from artifactnet.losses.alignment import alignment_loss
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.training.optim import parameter_groups
from artifactnet.types import ArtifactNetError
from perf.alignment_forms import FLOOR, FORMS, Form, attention_shape, baseline_of
from perf.harness import (
    Times,
    add_report_options,
    check_out,
    check_setting,
    make_report,
    spread,
    take_turns,
    write_report,
)
from perf.peak_memory import MEGABYTE, cuda_peak, fresh_peak, limited_memory, out_of_memory
from perf.roofline import roofline

DEVICES = ("auto", "cpu", "cuda")

# Largest differences between forms that compute the same: of loss and map (as a share of its
# largest value), and of the gradient's norm. Autocast rounds the baselines' matrices, the
# library's row is float32 throughout.
TOLERANCES = {"float32": (1e-4, 1e-3), "bfloat16": (5e-2, 1e-1), "float16": (1e-2, 5e-2)}
# the gradient rollout's dO goes through all blocks twice: ViT-B/14 at 224 px is 1.6e-4 from
# float64 in either form
_GRADIENT_TOLERANCES = {"float32": (1e-3, 1e-3)}
FEWEST_SIZES = 3  # of a line that could fail to be one

_LOSS_SCALE = 2.0**10  # of float16, whose gradients underflow otherwise
_BENIGN_WEIGHT = 0.4
_SHARPER, _LOUDER = 4.0, 10.0  # factors on random weights, see `_model`
_MEMORY_STEPS = 2  # the second has the optimizer's state from its start
_KERNEL_REPEATS = 20


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    option = parser.add_argument
    option("--backbone", default="vit_small_patch14_dinov2", metavar="NAME")
    option(
        "--size",
        type=positive,
        nargs="+",
        metavar="PIXELS",
        help="one or several sides (518; none with --memory-sizes)",
    )
    option("--batch-size", type=positive, default=1, metavar="N")
    option(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="half precision by autocast; float16 with a fixed loss scale",
    )
    option("--device", choices=("auto", "cpu", "cuda"), default="auto")
    option("--method", choices=("rollout", "gradient_rollout"), default="rollout")
    add_value(
        parser,
        "--forms",
        names,
        [],
        "some of the method's forms, with commas and dashes: fused,stored-row",
        metavar="NAMES",
    )
    add_value(parser, "--start-layer", int, 0, "first block of the map; -4: the last four")
    add_value(parser, "--every", positive, 1, "align at every N-th step")
    option(
        "--memory-sizes",
        type=positive,
        nargs="+",
        default=[],
        metavar="PIXELS",
        help="sides at which memory alone is measured, for a line over N",
    )
    option("--no-memory", action="store_true", help="measure time alone at --size")
    option("--plot", metavar="SVG", help="file for cost against N, SVG or PNG")
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run, print and write the report."""
    from perf.alignment_plot import check_plot, plot_costs  # which imports this module

    check_out(args.out, args.plot)
    if args.plot:
        check_plot(args.plot)
    setting = StepSetting(
        backbone=args.backbone, batch_size=args.batch_size, dtype=args.dtype, device=args.device,
        method=args.method, start_layer=args.start_layer, every=args.every,
    )  # fmt: skip
    report = benchmark_alignment(
        setting, sizes=args.size or ([] if args.memory_sizes else [518]),
        memory_sizes=args.memory_sizes, forms=[form.replace("-", " ") for form in args.forms],
        repeats=args.repeats, memory=not args.no_memory,
    )  # fmt: skip
    write_report(args.out, report)
    _print_report(report)
    if args.plot:
        plot_costs([report], args.plot)
    return 0


@dataclass(frozen=True)
class StepSetting:
    """What is trained for a step.

    Attributes:
        backbone: a plain timm ViT.
        size: side of the images, pixels; whole patches.
        batch_size: images in a step.
        dtype: ``float32``, or ``bfloat16`` or ``float16`` by autocast.
        device: ``cpu`` or ``cuda``.
        method: ``rollout`` or ``gradient_rollout``.
        start_layer: first block of the map; -k: the last k.
        every: align at every N-th step.
    """

    backbone: str = "vit_small_patch14_dinov2"
    size: int = 518
    batch_size: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    method: str = "rollout"
    start_layer: int = 0
    every: int = 1


class Figures(NamedTuple):
    """What an aligned form computes: heatmap (B, h, w), its loss, the norm of its gradient."""

    heatmap: Tensor
    loss: float
    gradient_norm: float


class TrainingStep:
    """Model, optimizer and batch of a setting; `run` takes a step in any form.

    The learning rate is 0: a step costs what it costs, and all forms see the same weights.

    Args:
        setting: what to build.

    Raises:
        ArtifactNetError: the backbone has no rollout, or the image does not fill whole patches.
    """

    def __init__(self, setting: StepSetting) -> None:
        self.setting = setting
        self.model = _model(setting).to(setting.device)
        grid = self.model.grid
        assert grid is not None
        groups = parameter_groups(self.model, OptimConfig(lr=0.0))
        self._optimizer = torch.optim.AdamW(groups, lr=0.0)
        generator = torch.Generator().manual_seed(0)
        batch, side = setting.batch_size, setting.size
        images = torch.randn(batch, 3, side, side, generator=generator)
        labels = torch.randint(2, (batch,), generator=generator).float()
        share = torch.randint(2, (batch, *grid), generator=generator).float()
        self._images, self._labels, self._share = (
            tensor.to(setting.device) for tensor in (images, labels, share)
        )
        self._annotated = torch.ones(batch, dtype=torch.bool, device=setting.device)
        self._scale = _LOSS_SCALE if setting.dtype == "float16" else 1.0

    @property
    def tokens(self) -> int:
        """N: patches and prefix tokens."""
        assert self.model.grid is not None
        return math.prod(self.model.grid) + self.model.backbone.prefix_tokens

    @property
    def dtype(self) -> torch.dtype:
        """Of the attention's queries and keys."""
        dtype: torch.dtype = getattr(torch, self.setting.dtype)
        return dtype

    def attention_shape(self) -> tuple[int, int, int, int]:
        """(B, H, N, d) of the blocks' queries."""
        return attention_shape(self.model, self._images)

    def run(self, form: str) -> None:
        """Take ``setting.every`` steps, the first of them aligned; wait until they are done."""
        for step in range(self.setting.every):
            self._backward(FORMS[self.setting.method][form if step == 0 else FLOOR])
            self._optimizer.step()
            self._optimizer.zero_grad()
        if self.setting.device == "cuda":
            torch.cuda.synchronize()

    def figures(self, form: str) -> Figures:
        """What an aligned form computes, to be compared with another's.

        Raises:
            ArtifactNetError: the gradient is not finite.
        """
        heatmap, alignment = self._backward(FORMS[self.setting.method][form], verdict=False)
        assert heatmap is not None
        assert alignment is not None
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        self._optimizer.zero_grad()
        if not math.isfinite(norm):
            raise ArtifactNetError(
                f"alignment-step: the gradient of the {form!r} form is not finite in "
                f"{self.setting.dtype}; use --dtype bfloat16 or float32"
            )
        return Figures(heatmap, float(alignment), norm)

    def release(self) -> None:
        """Let go of what a step that broke off has left."""
        self._optimizer.zero_grad()
        if self.setting.device == "cuda":
            torch.cuda.empty_cache()

    def _backward(self, form: Form, verdict: bool = True) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of the loss, with BCE or without; heatmap and alignment loss."""
        half = self.dtype != torch.float32
        with torch.autocast(self.setting.device, self.dtype, enabled=half):
            logit, heatmap = form.forward(self.model, self._images)
        parts = []
        if verdict:
            parts.append(F.binary_cross_entropy_with_logits(logit.float(), self._labels))
        alignment = None
        if heatmap is not None:
            target = (self._share, self._annotated)
            alignment = alignment_loss(heatmap.float(), *target, _BENIGN_WEIGHT)
            parts.append(alignment)
        (torch.stack(parts).sum() * self._scale).backward()
        if self._scale != 1:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, 1 / self._scale)
        if heatmap is None or alignment is None:
            return None, None
        return heatmap.detach(), alignment.detach()


def _model(setting: StepSetting) -> ArtifactNet:
    """A model in training mode whose random weights behave somewhat like trained ones.

    As timm makes them, attention is almost even, and DINOv2's LayerScale lets next to nothing
    through: all forms would have the same map, whatever they did.
    """
    torch.manual_seed(0)
    options = AttentionConfig(method=setting.method, start_layer=setting.start_layer)
    config = ModelConfig(
        backbone=setting.backbone,
        image_size=[setting.size, setting.size],
        pretrained="false",
        attention=options,
    )
    model = ArtifactNet(config)
    if not model.has_attention:
        raise ArtifactNetError(f"alignment-step: {model.no_attention}")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("attn.qkv.weight"):
                parameter.mul_(_SHARPER)
            elif name.endswith(".gamma"):
                parameter.fill_(1.0)
        model.head.weight.mul_(_LOUDER)
    return model.train()


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
    memory: dict[str, Any] = dict.fromkeys(forms)
    for form, peak in peaks.items():
        if peak is not None and floor is not None:
            memory[form] = {
                "peak_megabytes": peak / MEGABYTE,
                "extra_megabytes": (peak - floor) / MEGABYTE,
                "share_of_baseline": (peak - floor) / added if added > 0 else None,
            }
    return memory


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
    for _ in range(_MEMORY_STEPS):
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
        forms: some of `FORMS`; empty: all. The floor is always included.
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
    tokens = {size: TrainingStep(at[size]).tokens for size in at}  # errors show at once
    peaks = {size: peak_memory(at[size], chosen) for size in at if memory or size in memory_sizes}
    rows = [{"size": size, "tokens": tokens[size], "forms": peaks[size]} for size in peaks]
    timed = []
    for size in sorted({*sizes}):
        fitting = [form for form in chosen if size not in peaks or peaks[size][form] is not None]
        row = {"size": size, "tokens": tokens[size]}
        timed.append({**row, **_timed(at[size], chosen, fitting, repeats)})
    shown = {key: value for key, value in dataclasses.asdict(setting).items() if key != "size"}
    report = make_report(
        "alignment-step",
        {**shown, "repeats": repeats, "tolerances": list(_tolerances(setting))},
        baseline_of(setting.method),
        floor=FLOOR,
        forms={form: FORMS[setting.method][form].text for form in chosen},
        steps=timed,
        memory=rows,
        memory_fit=fit_lines(rows, chosen),
    )
    report["machine"].update(_gpu(setting))
    return report


def _checked(setting: StepSetting, sizes: Sequence[int], repeats: int) -> StepSetting:
    """The setting with its device resolved, after all checks."""
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
    """Times of all forms at one size, or that memory ran out."""
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
    results: dict[str, Any] = {}
    for form in forms:
        results[form] = {"out_of_memory": form not in times}
        if form in times:
            results[form].update(_step_summary(times, form, setting))
        figure = figures.get(form)
        if figure is not None:
            results[form]["alignment_loss"] = figure.loss
            results[form]["alignment_gradient_norm"] = figure.gradient_norm
    kernels = {}
    if on_gpu:
        steps = {form: partial(step.run, form) for form in times}
        kernels["roofline"] = roofline(step.attention_shape(), step.dtype, _KERNEL_REPEATS, steps)
    return {"forms": results, **kernels}


def _figures(step: TrainingStep, forms: Sequence[str]) -> dict[str, Figures | None]:
    """A first, untimed step of every form that fits into memory, and its numbers."""
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
    """Refuse to time forms that differ in what they should share.

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
    seconds = spread(time.wall / setting.every for time in own)
    pairs = list(zip(own, floor, strict=True))
    return {
        "seconds": seconds,
        "cpu_seconds": spread(time.cpu / setting.every for time in own),
        "ratio": spread(a.wall / b.wall for a, b in pairs),
        "cpu_ratio": spread(a.cpu / b.cpu for a, b in pairs),
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
    return (
        _GRADIENT_TOLERANCES.get(setting.dtype, own)
        if setting.method == "gradient_rollout"
        else own
    )


def _print_report(report: dict[str, Any]) -> None:
    setting, floor = report["setting"], report["floor"]
    keys = ("backbone", "method", "dtype", "device", "batch_size", "start_layer", "every")
    print(", ".join(f"{key} {setting[key]}" for key in keys))
    for row in report["steps"]:
        print(f"\n{row['size']} px, {row['tokens']} tokens: seconds a step, ratio to {floor}")
        for form, result in row["forms"].items():
            print(f"  {form:<19} {_time_words(result)}")
        if "roofline" in row:
            _print_roofline(row["roofline"])
    for row in report["memory"]:
        print(
            f"\n{row['size']} px, {row['tokens']} tokens: MB beyond {floor} at the peak, share of "
            f"what {report['baseline']} adds"
        )
        for form, result in row["forms"].items():
            print(f"  {form:<19} {_memory_words(result)}")
    if report["memory_fit"]:
        print("\nMB beyond the floor = a + b N")
    for form, fit in report["memory_fit"].items():
        print(
            f"  {form:<19} a {fit['intercept_megabytes']:9.2f}  b {fit['megabytes_per_token']:8.4f}"
            f"  R2 {_number(fit['r_squared'], '.4f')}"
            f"  largest residual {_number(fit['max_relative_residual'], '.1%')}"
        )
    compared = [row for row in report["steps"] if row["forms"]]
    if compared:
        print("\nforms that compute the same were compared before they were timed")


def _time_words(result: dict[str, Any]) -> str:
    if result["out_of_memory"]:
        return "out of memory"
    seconds, ratio = result["seconds"]["median"], result["ratio"]
    return (
        f"{seconds:9.4f} s  {ratio['median']:6.3f} x ({ratio['min']:.3f} to {ratio['max']:.3f})"
        f"  CPU {result['cpu_ratio']['median']:.3f} x  {result['images_per_second']:.2f} images/s"
    )


def _memory_words(peak: dict[str, Any] | None) -> str:
    if peak is None:
        return "out of memory"
    return (
        f"{peak['extra_megabytes']:9.1f} MB  {_number(peak['share_of_baseline'], '.3f')}"
        f"  (peak {peak['peak_megabytes']:.0f} MB)"
    )


def _print_roofline(roofline: dict[str, Any]) -> None:
    if "reason" in roofline:
        print(f"  no kernel times: {roofline['reason']}")
        return
    peaks = roofline["peaks"]
    print(
        f"  kernels, against {peaks['bytes_per_second'] / 1e12:.2f} TB/s, "
        f"{peaks['flops_per_second'] / 1e12:.0f} TFLOP/s and "
        f"{peaks['exponentials_per_second'] / 1e12:.2f}e12 exponentials/s measured in this run:"
    )
    for name, row in roofline["products"].items():
        print(
            f"    {name:<19} {row['seconds'] * 1e3:8.3f} ms  roofline "
            f"{row['roofline_seconds'] * 1e3:.3f} ms by {row['limit']} "
            f"({row['share_of_roofline']:.0%}); {_call_words(row['calls_in_step'])}"
        )


def _call_words(calls: dict[str, int]) -> str:
    words = [f"{count} calls in a step of {form}" for form, count in calls.items()]
    return ", ".join(words) or "not used by the steps above"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
