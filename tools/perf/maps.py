"""The cost of attention maps: a row pushed through the blocks beside whole matrices."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from artifactnet.cli.arguments import positive
from artifactnet.config import AttentionConfig, ModelConfig
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.attention.rollout import (
    attention_rollout,
    gradient_rollout,
    output_gradients,
    relevance_row,
)
from artifactnet.models.attention.stored import attention_weights, gradient_of_attention
from artifactnet.models.attention.tap import AttentionLayer, AttentionTap
from artifactnet.types import ArtifactNetError
from perf.harness import (
    Arrays,
    add_report_options,
    check_out,
    check_setting,
    make_report,
    print_forms,
    summary,
    time_side_by_side,
    write_report,
)
from perf.peak_memory import MEGABYTE, fresh_peak

METHODS = ("rollout", "gradient_rollout", "relevance")
MATRICES = "full matrices"
ROW = "row"
FORWARD = "forward alone"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    option = parser.add_argument
    option("--backbone", default="vit_small_patch14_dinov2", metavar="NAME")
    option("--size", type=positive, default=518, metavar="PIXELS")
    option("--batch-size", type=positive, default=1, metavar="N")
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run, print and write the report."""
    check_out(args.out)
    report = benchmark_maps(args.backbone, args.size, args.batch_size, args.repeats)
    write_report(args.out, report)
    for method, result in report["methods"].items():
        print(f"{method}, {report['setting']['tokens']} tokens")
        print_forms(result["forms"], "  ")
        for form, size in result["extra_megabytes"].items():
            print(f"    {form}: {size:.0f} MB more than a forward pass at its peak")
    print(f"compared with the {report['baseline']} form; all give the same maps")
    return 0


def benchmark_maps(
    backbone: str = "vit_small_patch14_dinov2",
    size: int = 518,
    batch_size: int = 1,
    repeats: int = 5,
) -> dict[str, Any]:
    """Time maps of a ViT with random weights, and measure the memory they add.

    The baseline is what the methods' public scripts do: the attention matrices of all blocks and
    heads (and their gradients) are kept, fused, and multiplied as N x N matrices. Both forms
    include the forward pass, and the backward pass where the method needs one.

    Args:
        backbone: a plain timm ViT.
        size: side of the images, pixels; whole patches.
        batch_size: images in a batch.
        repeats: how often each form is timed.

    Returns:
        See `perf.harness.make_report`; ``methods``: for each its ``forms``, a `summary` each, and
        ``extra_megabytes``: peak memory beyond a forward pass, each in a fresh process.

    Raises:
        ArtifactNetError: a number below 1, a backbone without rollout, or maps that differ.
    """
    setting = {"size": size, "batch_size": batch_size, "repeats": repeats}
    check_setting(setting)
    model, images = _model(backbone, size), _images(size, batch_size)
    tokens = 0
    methods: dict[str, Any] = {}
    for method in METHODS:
        cases = {MATRICES: _case(model, images, method, full_map)}
        cases[ROW] = _case(model, images, method, row_map)
        tokens = cases[ROW]()[0].shape[-1]
        times = time_side_by_side(cases, repeats, tolerance=1e-4)
        peaks = {form: _peak(backbone, size, batch_size, method, form) for form in cases}
        floor = _peak(backbone, size, batch_size, method, FORWARD)
        methods[method] = {
            "forms": {form: summary(times, form, MATRICES) for form in times},
            "extra_megabytes": {form: (peak - floor) / MEGABYTE for form, peak in peaks.items()},
        }
    facts = {"backbone": backbone, **setting, "tokens": tokens}
    return make_report("explain-maps", facts, MATRICES, methods=methods)


def row_map(logit: Tensor, layers: list[AttentionLayer], method: str) -> Tensor:
    """Class row (B, N) of a method, the way this library does it."""
    if method == "rollout":
        return attention_rollout(layers)
    return (gradient_rollout if method == "gradient_rollout" else relevance_row)(logit, layers)


def full_map(logit: Tensor, layers: list[AttentionLayer], method: str) -> Tensor:
    """Class row (B, N) of a method by whole matrices: the baseline."""
    with torch.no_grad():
        kept = [attention_weights(layer) for layer in layers]
    if method != "rollout":
        gradients = output_gradients(logit, layers)
        with torch.no_grad():
            kept = [
                weights * gradient_of_attention(layer, gradient, slice(None), weights.dtype)
                for weights, layer, gradient in zip(kept, layers, gradients, strict=True)
            ]
    with torch.no_grad():
        eye = torch.eye(kept[0].shape[-1])
        product = eye.expand(len(logit), -1, -1)
        for weights in kept:
            if method == "relevance":
                step = weights.clamp_min(0).mean(1) + eye
            else:
                step = weights.mean(1).clamp_min(0) + eye
                step = step / step.sum(-1, keepdim=True)
            product = step @ product
        return product[:, 0]


def _case(
    model: ArtifactNet,
    images: Tensor,
    method: str,
    form: Callable[[Tensor, list[AttentionLayer], str], Tensor],
) -> Callable[[], Arrays]:
    def run() -> Arrays:
        graph = method != "rollout"
        with torch.set_grad_enabled(graph), AttentionTap(differentiable=graph) as tap:
            logit = model(images).logit
        with torch.set_grad_enabled(graph):
            return [form(logit, tap.layers, method).detach().numpy()]

    return run


def _model(backbone: str, size: int) -> ArtifactNet:
    torch.manual_seed(0)
    attention = AttentionConfig(method="rollout")
    config = ModelConfig(
        backbone=backbone, image_size=[size, size], pretrained="false", attention=attention
    )
    model = ArtifactNet(config).eval().requires_grad_(False)
    if model.no_attention is not None:
        raise ArtifactNetError(f"explain-maps: {model.no_attention}")
    return model


def _images(size: int, batch_size: int) -> Tensor:
    return torch.randn(batch_size, 3, size, size, generator=torch.Generator().manual_seed(0))


def _peak(backbone: str, size: int, batch_size: int, method: str, form: str) -> int:
    """Largest resident memory, bytes, of a fresh process that makes one map."""
    peak = fresh_peak(make_map, backbone, size, batch_size, method, form)
    if peak is None:
        raise ArtifactNetError(
            f"explain-maps: the {form} form of {method} ran out of memory; try a smaller --size"
        )
    return peak


def make_map(backbone: str, size: int, batch_size: int, method: str, form: str) -> None:
    """Build a model and make one map, or run the forward pass alone, in one of the forms."""
    model, images = _model(backbone, size), _images(size, batch_size)
    if form == FORWARD:
        with torch.set_grad_enabled(method != "rollout"), AttentionTap(method != "rollout"):
            model(images)
    else:
        _case(model, images, method, full_map if form == MATRICES else row_map)()
