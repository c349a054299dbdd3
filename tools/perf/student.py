"""What a student costs beside a large teacher: multiply-adds, and seconds per image."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from artifactnet.cli.arguments import add_value, names, positive
from artifactnet.config import HeatmapConfig, ModelConfig, load
from artifactnet.exporters.export import Int8, export_checked
from artifactnet.inference.backends.exported import Session, open_session
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError, UInt8Array
from perf.harness import (
    add_report_options,
    check_out,
    check_setting,
    make_report,
    print_forms,
    summary,
    take_turns,
    write_report,
)

TEACHER = "teacher, torch"
FORMATS = {
    "onnx": ("model.onnx", "onnx", False),
    "onnx-int8": ("model.onnx", "onnx", True),
    "openvino": ("model.xml", "openvino", False),
    "openvino-int8": ("model.xml", "openvino", True),
}
_CHECKED = 2  # images that an export is checked with
_CALIBRATED = 4


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    option = parser.add_argument
    add_value(
        parser,
        "--students",
        names,
        ["student_nano", "student_small"],
        "with commas (student_nano,student_small)",
        metavar="RECIPES",
    )
    option("--teacher", default="vit_large_patch14_dinov2", metavar="BACKBONE")
    option("--teacher-size", type=positive, default=518, metavar="PIXELS")
    option("--size", type=positive, default=512, metavar="PIXELS")
    add_value(
        parser,
        "--formats",
        names,
        ["onnx", "openvino"],
        "of onnx,onnx-int8,openvino,openvino-int8; each student also runs in PyTorch",
        metavar="NAMES",
    )
    option("--threads", type=positive, metavar="N", help="of every runtime")
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run, print and write the report."""
    check_out(args.out)
    report = benchmark_student(
        students=args.students, teacher=args.teacher, teacher_size=args.teacher_size,
        size=args.size, formats=args.formats, repeats=args.repeats, threads=args.threads,
    )  # fmt: skip
    write_report(args.out, report)
    for name, model in report["models"].items():
        print(
            f"{name}: {model['parameters'] / 1e6:.2f} M parameters, "
            f"{model['multiply_adds'] / 1e9:.2f} G multiply-adds an image, "
            f"{model['times_fewer']:.1f} times fewer than the teacher"
        )
    print_forms(report["forms"])
    print(f"one image at a time; compared with the {report['baseline']}")
    return 0


def benchmark_student(
    students: Sequence[str] = ("student_nano", "student_small"),
    teacher: str = "vit_large_patch14_dinov2",
    teacher_size: int = 518,
    size: int = 512,
    formats: Sequence[str] = ("onnx", "openvino"),
    repeats: int = 5,
    threads: int | None = None,
) -> dict[str, Any]:
    """Time students, one image at a time, beside one forward pass of a large ViT.

    Weights are random, since they do not change the time. The teacher is the backbone with a
    light heatmap head on one image: HEIE runs it on every tile and a thumbnail, and a language
    model after it, so the ratios are conservative. Every timed run follows an untimed one of the
    same model, as in a service that answers image after image.

    Args:
        students: names of recipes, or config files.
        teacher: timm backbone of the teacher.
        teacher_size: side of its image, pixels.
        size: side of the students' image, pixels.
        formats: of `FORMATS`; each student is also timed in PyTorch.
        repeats: at least 1.
        threads: of every runtime; None: PyTorch's number.

    Returns:
        See `perf.harness.make_report`; ``models``: ``multiply_adds`` and ``parameters`` of each;
        ``forms``: a `summary` each.

    Raises:
        ArtifactNetError: an unknown format, a number below 1, or a missing package.
    """
    check_setting({"repeats": repeats, "size": size, "teacher_size": teacher_size})
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ArtifactNetError(f"no format {unknown[0]!r}; known: {', '.join(FORMATS)}")
    threads = threads or torch.get_num_threads()
    nets = {"teacher": (_teacher(teacher, teacher_size), teacher_size)}
    nets |= {name: (_student(name, size), size) for name in students}
    facts = {name: _facts(*net) for name, net in nets.items()}
    for model in facts.values():
        model["times_fewer"] = facts["teacher"]["multiply_adds"] / model["multiply_adds"]
    with tempfile.TemporaryDirectory() as folder, _using(threads):
        cases = _cases(nets, formats, Path(folder), threads)
        for case in cases.values():
            case()  # warm
        times = take_turns(cases, repeats, warm_up=True)
    setting = {
        "teacher": teacher,
        "teacher_size": teacher_size,
        "size": size,
        "repeats": repeats,
        "threads": threads,
    }
    forms = {form: summary(times, form, TEACHER) for form in cases}
    return make_report("student", setting, TEACHER, models=facts, forms=forms)


def _cases(
    nets: Mapping[str, tuple[ArtifactNet, int]], formats: Sequence[str], folder: Path, threads: int
) -> dict[str, Callable[[], object]]:
    """What is timed, by name: every model in PyTorch, students in the other formats as well."""
    cases: dict[str, Callable[[], object]] = {}
    for name, (net, side) in nets.items():
        cases[f"{name}, torch"] = partial(_forward, net, side)
        for form in formats if name != "teacher" else ():
            session = _session(net, side, form, folder / str(len(cases)), threads)
            cases[f"{name}, {form}"] = partial(session.run, _frames(side, 1)[0][None])
    return cases


@contextmanager
def _using(threads: int) -> Iterator[None]:
    """PyTorch's number of threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _teacher(backbone: str, size: int) -> ArtifactNet:
    return ArtifactNet(
        ModelConfig(
            backbone=backbone,
            image_size=[size, size],
            pretrained="false",
            heatmap=HeatmapConfig(head="decoder", width=256, stride=16),
        )
    ).eval()


def _student(name: str, size: int) -> ArtifactNet:
    config = load(name, [f"model.image_size=[{size},{size}]", "model.pretrained=false"]).model
    return ArtifactNet(config).eval()


def _forward(model: ArtifactNet, size: int) -> None:
    with torch.inference_mode():
        model(torch.zeros(1, 3, size, size), heatmap=True)


def _facts(model: ArtifactNet, size: int) -> dict[str, float]:
    """Multiply-adds of one image, counted by PyTorch, and parameters."""
    with FlopCounterMode(display=False) as counter:
        _forward(model, size)
    return {
        "multiply_adds": counter.get_total_flops() / 2,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _frames(size: int, count: int) -> list[UInt8Array]:
    shape = (size, size, 3)
    return [
        np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
        for seed in range(count)
    ]


def _session(model: ArtifactNet, size: int, form: str, folder: Path, threads: int) -> Session:
    file, backend, int8 = FORMATS[form]
    images = _frames(size, _CHECKED + _CALIBRATED)
    calibration = Int8(images[_CHECKED:]) if int8 else None
    export_checked(model, folder / file, images[:_CHECKED], int8=calibration)
    return open_session(folder / file, backend, threads)
