"""How much of a model's speed `predict` keeps over a folder, and whether its memory stays flat."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from artifactnet.cli.arguments import add_value, natural, positive
from artifactnet.data.images import encode_jpeg
from artifactnet.data.sources import demo
from artifactnet.files import write_json
from artifactnet.inference.folder import predict_to_folder
from artifactnet.inference.load import find_model, load_model
from artifactnet.inference.predictor import Predictor
from artifactnet.models.state import evaluating
from artifactnet.types import ArtifactNetError, Prediction
from perf.harness import (
    add_report_options,
    check_out,
    check_setting,
    check_workers,
    make_report,
    spread,
    summary,
    take_turns,
    write_report,
)
from perf.peak_memory import MEGABYTE, fresh_peak, resident_peak

BARE = "bare model"
_MARKS = 10  # how often memory is looked at on the way through the folder
_PART = 1000  # images in one folder: file systems are slow with more
_PRELOADED = 4  # different batches
_QUALITY = 90


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        model: what ``predict --model`` takes.
        images: JPEG files in the folder, crops of the packaged photographs.
        size: side of each, pixels; smaller where its photograph is.
        timed: images of each timed round; no more than ``images`` are.
        workers: threads of each form.
        batch_size: images that pass through the model together.
        heatmaps: whether maps are made and written.
        repeats: rounds.
        threads: processor threads of the model; 0 leaves it to the backend.
        device: where a model that was not exported runs.
    """

    model: str = "student-nano"
    images: int = 1000
    size: int = 512
    timed: int = 64
    workers: Sequence[int] = (0, 2)
    batch_size: int = 8
    heatmaps: bool = True
    repeats: int = 5
    threads: int = 0
    device: str = "auto"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    option = parser.add_argument
    option("--model", default="student-nano", metavar="PATH", help="as for predict")
    add_value(parser, "--images", positive, 1000, "files in the folder (1000)")
    add_value(parser, "--size", positive, 512, "side of each (512)", metavar="PIXELS")
    add_value(parser, "--timed", positive, 64, "images of each timed round (64)")
    option(
        "--workers",
        type=natural,
        nargs="+",
        default=[0, 2],
        metavar="N",
        help="threads of each form; memory is that of the last (0 2)",
    )
    option("--batch-size", type=positive, default=8, metavar="N")
    option("--no-heatmaps", action="store_true", help="make and write no pictures")
    add_value(parser, "--threads", natural, 0, "of the model")
    option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run, print and write the report."""
    check_out(args.out)
    setting = Setting(
        model=args.model, images=args.images, size=args.size, timed=args.timed,
        workers=args.workers, batch_size=args.batch_size, heatmaps=not args.no_heatmaps,
        repeats=args.repeats, threads=args.threads, device=args.device,
    )  # fmt: skip
    report = benchmark_predict(setting)
    write_report(args.out, report)
    for form, result in report["forms"].items():
        speed, share, less = (
            result[key] for key in ("images_per_second", "share_of_bare_model", "times_less_cpu")
        )
        print(
            f"{form:<20} {speed['median']:8.2f} images/s ({speed['min']:.2f} to "
            f"{speed['max']:.2f})  {share['median']:6.1%} of the bare model ({share['min']:.1%} to "
            f"{share['max']:.1%}), by processor time {less['median']:.1%}"
        )
    _print_memory(report["memory"])
    return 0


def _print_memory(memory: dict[str, Any] | None) -> None:
    if memory is None:
        print("memory ran out on the way through the folder")
        return
    ends = [f"{memory['peak_megabytes'][k]:.0f} MB after {memory['images'][k]}" for k in (0, -1)]
    print(f"peak memory {ends[0]} images, {ends[1]}; {memory['images_per_second']:.2f} images/s")
    if memory["megabytes_per_1000_images"] is not None:
        print(f"  {memory['megabytes_per_1000_images']:+.2f} MB per 1,000 images")


def benchmark_predict(setting: Setting) -> dict[str, Any]:
    """Time `predict_to_folder` beside the model alone, and watch its memory.

    The bare model gets the same number of images in batches of the same size, which are tensors
    on its device before the clock starts; it computes the same maps and nothing is done with
    them. Memory is that of a process of its own, with the last of ``workers``, that works through
    the whole folder.

    Returns:
        a report for ``json.dumps``: machine, setting; of each form seconds,
        ``images_per_second`` and ``share_of_bare_model`` (of its images per second, round by
        round); ``memory``, see `_memory`.

    Raises:
        ArtifactNetError: no such model, a number below its least, or a packaged photograph is
            missing.
    """
    counts = ("images", "size", "timed", "batch_size", "repeats")
    check_setting({name: getattr(setting, name) for name in counts})
    check_workers(setting.workers)
    timed = min(setting.timed, setting.images)
    predictor = open_predictor(setting.model, setting.device, setting.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "images"
        files = make_crops(folder, setting.images, setting.size)[:timed]
        cases = _cases(predictor, setting, files, Path(scratch) / "timed")
        for case in cases.values():
            case()  # warm
        times = take_turns(cases, setting.repeats)
        memory = _memory(setting, folder, Path(scratch))
    forms = {}
    for form in cases:
        pairs = zip(times[BARE], times[form], strict=True)
        forms[form] = {
            **summary(times, form, BARE),
            "images_per_second": spread(timed / own.wall for own in times[form]),
            "share_of_bare_model": spread(bare.wall / own.wall for bare, own in pairs),
        }
    options = {**asdict(setting), "timed": timed}
    return make_report("predict", options, BARE, forms=forms, memory=memory)


def _cases(
    predictor: Predictor, setting: Setting, files: Sequence[Path], out: Path
) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    cases: dict[str, Callable[[], object]] = {BARE: _bare(predictor, setting, len(files))}
    run = partial(predict_to_folder, predictor, files, out, **_options(setting))
    for count in dict.fromkeys(setting.workers):
        form = f"predict, {count} worker{'' if count == 1 else 's'}"
        cases[form] = partial(run, workers=count)
    return cases


def _options(setting: Setting) -> dict[str, Any]:
    """For `predict_to_folder`, whatever the number of workers."""
    return {"heatmaps": setting.heatmaps, "batch_size": setting.batch_size}


def open_predictor(model: str, device: str, threads: int) -> Predictor:
    """A model as ``predict --model`` opens it.

    Args:
        model: a run's folder, a ``.safetensors`` file, a packaged name, or an exported file.
        device: of a model that was not exported.
        threads: processor threads; 0 leaves it to the backend.

    Raises:
        ArtifactNetError: nothing of the kind.
    """
    exported = find_model(model).kind == "exported"
    predictor = load_model(model, "auto" if exported else device, threads=threads)
    assert isinstance(predictor, Predictor), f"{model}: predict's benchmark times detectors"
    return predictor


def make_crops(folder: Path, images: int, size: int, seed: int = 0) -> list[Path]:
    """Write random crops of the classic demo photographs as JPEG files.

    Args:
        folder: is made; the files lie in subfolders of a thousand.
        images: how many.
        size: side, pixels; smaller where the photograph is.
        seed: of the places.

    Raises:
        ArtifactNetError: a photograph is not installed.
        OSError: the disk refused.
    """
    rng, files = np.random.default_rng(seed), []
    for number in range(images):
        pixels = demo.read_photo(demo.CLASSIC[number % len(demo.CLASSIC)])
        height, width = (min(size, side) for side in pixels.shape[:2])
        top, left = (
            int(rng.integers(side - cut + 1))
            for side, cut in zip(pixels.shape[:2], (height, width), strict=True)
        )
        crop = np.ascontiguousarray(pixels[top : top + height, left : left + width])
        files.append(folder / f"{number // _PART:03d}" / f"{number % _PART:03d}.jpg")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_bytes(encode_jpeg(crop, _QUALITY))
    return files


def _bare(predictor: Predictor, setting: Setting, images: int) -> Callable[[], None]:
    """Forward passes alone, of batches as `predict` forms them, made now."""
    model = predictor.model
    if model.config.heatmap.head == "mapper" and model.config.heatmap.adaptive:
        raise ArtifactNetError(
            "benchmark predict: a mapper cuts each image by its own shape, so no batch of tensors "
            "stands for a folder; take a model without one, or model.heatmap.adaptive=false"
        )
    place = next(model.parameters()).device
    together, heatmaps = setting.batch_size, setting.heatmaps
    sizes = [min(together, images - done) for done in range(0, images, together)]
    shape = (min(_PRELOADED, len(sizes)), together, 3, *model.image_size)
    batches = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(place)
    maps = {
        "attention": heatmaps and model.has_attention,
        "segmentation": heatmaps and model.has_segmentation,
        "heatmap": model.has_heatmap,
    }

    def run() -> None:
        with evaluating(model), torch.no_grad():
            for number, size in enumerate(sizes):
                model(batches[number % len(batches)][:size], **maps)
        if place.type == "cuda":
            torch.cuda.synchronize()

    return run


def _memory(setting: Setting, folder: Path, scratch: Path) -> dict[str, Any] | None:
    """Peak memory of a process that works through a folder; None if it ran out.

    Returns:
        ``images``: after how many it was looked at; ``peak_megabytes`` (resident, of 2^20 bytes)
        then; ``megabytes_per_1000_images``: from the first to the last of these;
        ``images_per_second`` of the whole way.
    """
    file = scratch / "memory.json"
    if fresh_peak(walk, setting, folder, scratch / "answers", file) is None:
        return None
    memory: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    seen, peaks = memory["images"], memory["peak_megabytes"]
    more = 1000 * (peaks[-1] - peaks[0]) / (seen[-1] - seen[0]) if len(seen) > 1 else None
    return {**memory, "megabytes_per_1000_images": more}


def walk(setting: Setting, folder: Path, out: Path, file: Path) -> None:
    """Predict a folder and record the peak memory on the way; runs in a fresh process.

    Args:
        setting: the last of its ``workers`` counts.
        folder: of images.
        out: for the answers.
        file: JSON to write.

    Raises:
        ArtifactNetError: an image could not be predicted.
    """
    predictor = open_predictor(setting.model, setting.device, setting.threads)
    every = max(1, setting.images // _MARKS)
    peaks: list[int] = []
    seen = 0

    def look(_: Prediction) -> None:
        nonlocal seen
        seen += 1
        if seen % every == 0:
            peaks.append(resident_peak())

    started = time.perf_counter()
    options = {**_options(setting), "workers": setting.workers[-1]}
    done = predict_to_folder(predictor, [folder], out, report=look, **options)
    seconds = time.perf_counter() - started
    if done.failures:
        raise ArtifactNetError(f"{done.failures[0].path}: {done.failures[0].reason}")
    memory = {
        "images": [every * (number + 1) for number in range(len(peaks))],
        "peak_megabytes": [peak / MEGABYTE for peak in peaks],
        "images_per_second": seen / seconds,
    }
    write_json(file, memory)
