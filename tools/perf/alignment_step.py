"""What attention alignment adds to a training step, in time and in memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from artifactnet.config import AttentionConfig, ModelConfig, OptimConfig
from artifactnet.losses.alignment import alignment_loss
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.training.optim import parameter_groups
from artifactnet.types import ArtifactNetError
from perf.harness import Times, check_setting, machine, spread, take_turns
from perf.peak_memory import MEGABYTE, cuda_peak, fresh_peak, limited_memory, out_of_memory
from perf.roofline import roofline

Judged = tuple[Tensor, Tensor | None]  # logits (B,), and heatmaps (B, h, w) where they are made


class _Watch(TorchFunctionMode):
    """Keeps what went through every attention call: output, and weights P (B, H, N, N).

    Args:
        weights: form P and keep it in the graph.
        fused: let the kernel compute the output; else it is P v.
    """

    def __init__(self, weights: bool, fused: bool) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []
        self.weights: list[Tensor] = []
        self._keep, self._fused = weights, fused

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run ``func``, or attention in the way asked for."""
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        if kwargs.get("attn_mask") is not None or kwargs.get("is_causal"):
            raise ArtifactNetError("the benchmark's baselines need attention without a mask")
        q, k, v = args
        weights = None
        if self._keep or not self._fused:
            scale = kwargs.get("scale") or q.shape[-1] ** -0.5
            weights = (q @ k.transpose(-2, -1) * scale).softmax(dim=-1)
        if self._keep:
            assert weights is not None
            self.weights.append(weights)
        output = func(*args, **kwargs) if self._fused else weights @ v
        self.outputs.append(output)
        return output


def plain(model: ArtifactNet, images: Tensor) -> Judged:
    """No alignment, fused attention: the floor."""
    return model(images).logit, None


def unfused(model: ArtifactNet, images: Tensor) -> Judged:
    """No alignment, every block forms its N x N weights."""
    with _Watch(weights=False, fused=False):
        return model(images).logit, None


def extra_backward(model: ArtifactNet, images: Tensor) -> Judged:
    """No alignment, but the backward pass that gradient rollout cannot do without."""
    with _Watch(weights=False, fused=True) as watch:
        logit = model(images).logit
    torch.autograd.grad(logit.sum(), watch.outputs, retain_graph=True)
    return logit, None


def naive_rollout(model: ArtifactNet, images: Tensor) -> Judged:
    """Rollout with the weights of all blocks and heads kept, multiplied as N x N matrices."""
    with _Watch(weights=True, fused=True) as watch:
        logit = model(images).logit
    start = model.config.attention.start_layer
    matrices = [weights.mean(dim=1) for weights in watch.weights[start:]]
    return logit, _heatmap(model, images, matrices)


def naive_gradient_rollout(model: ArtifactNet, images: Tensor) -> Judged:
    """Gradient rollout by ``create_graph`` through kept weights and N x N products."""
    with _Watch(weights=True, fused=False) as watch:
        logit = model(images).logit
    kept = watch.weights[model.config.attention.start_layer :]
    slopes = torch.autograd.grad(logit.sum(), kept, create_graph=True)
    matrices = [(p * g).mean(dim=1).clamp_min(0) for p, g in zip(kept, slopes, strict=True)]
    return logit, _heatmap(model, images, matrices)


def attention_shape(model: ArtifactNet, images: Tensor) -> tuple[int, int, int, int]:
    """(B, H, N, d) of the blocks' queries."""
    with torch.no_grad(), _Watch(weights=False, fused=True) as watch:
        model(images)
    batch, heads, tokens, size = watch.outputs[0].shape
    return batch, heads, tokens, size


def _heatmap(model: ArtifactNet, images: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Map of the class row of A_L ... A_1, with A = (M + I) / row sums, from M (B, N, N).

    The share a of each of n patches becomes 1 - 2^(-n a / 2) (the ``saturate`` normalization).
    """
    assert model.config.attention.normalization == "saturate"
    patch = model.backbone.patch_size
    assert patch
    eye = torch.eye(matrices[0].shape[-1], dtype=matrices[0].dtype, device=images.device)
    product = None
    for matrix in matrices:
        step = matrix + eye
        step = step / step.sum(dim=-1, keepdim=True)
        product = step if product is None else step @ product
    assert product is not None
    height, width = images.shape[-2] // patch, images.shape[-1] // patch
    shares = product[:, 0, model.backbone.prefix_tokens :].float()
    saturated = -torch.expm1(-math.log(2) * shares * (height * width / 2))
    return saturated.view(-1, height, width)


pass

FLOOR = "sdpa"


@dataclass(frozen=True)
class Form:
    """A way to take the step.

    Attributes:
        text: what it is, in a line.
        judge: logits and heatmaps of a batch.
        gradient: forms with the same name here have the same gradient; None: no alignment.
    """

    text: str
    judge: Callable[[ArtifactNet, Tensor], Judged]
    gradient: str | None = None


def _own(form: str, second_order: bool) -> Callable[[ArtifactNet, Tensor], Judged]:
    """The library's map, with these options."""

    def judge(model: ArtifactNet, images: Tensor) -> Judged:
        options = model.config.attention
        changed = dataclasses.replace(options, form=form, second_order=second_order)
        model.config.attention = changed
        try:
            output = model(images, attention=True, create_graph=True)
        finally:
            model.config.attention = options
        return output.logit, output.heatmap

    return judge


_PLAIN = Form("no alignment, fused attention: the floor", plain)
_UNFUSED = Form("no alignment, every block forms its N x N weights", unfused)

# the baseline of a method is the last of its forms
FORMS: dict[str, dict[str, Form]] = {
    "rollout": {
        FLOOR: _PLAIN,
        "unfused": _UNFUSED,
        "fused": Form(
            "model.attention.form=auto: nothing N x N is stored", _own("auto", True), "exact"
        ),
        "stored row": Form(
            "model.attention.form=stored: weights kept, the class row multiplied through them",
            _own("stored", True),
            "exact",
        ),
        "naive": Form(
            "weights of all heads and blocks kept, N x N products, as public scripts do",
            naive_rollout,
            "exact",
        ),
    },
    "gradient_rollout": {
        FLOOR: _PLAIN,
        "unfused": _UNFUSED,
        "extra backward": Form(
            "no alignment, one more backward to the attention outputs: the method's floor",
            extra_backward,
        ),
        "first order": Form(
            "second_order=false, form=auto: of a block and image one N x N matrix, heads fused, is "
            "stored while N <= 4 x width; beyond that nothing N x N",
            _own("auto", False),
            "first",
        ),
        "stored first order": Form(
            "second_order=false, form=stored: weights kept, row products",
            _own("stored", False),
            "first",
        ),
        "second order": Form(
            "second_order=true, form=auto: attention is not fused, every head's matrices stored",
            _own("auto", True),
            "second",
        ),
        "plain create_graph": Form(
            "gradient of kept weights with create_graph, N x N products, as public scripts do",
            naive_gradient_rollout,
            "second",
        ),
    },
}


def baseline_of(method: str) -> str:
    """The form that does what public scripts do."""
    return list(FORMS[method])[-1]


_LOSS_SCALE = 2.0**10  # of float16, whose gradients underflow otherwise
_BENIGN_WEIGHT = 0.4
_SHARPER, _LOUDER = 4.0, 10.0  # factors on random weights, see `_model`


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
        found: torch.dtype = getattr(torch, self.setting.dtype)
        return found

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
            logit, heatmap = form.judge(self.model, self._images)
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
