"""How much of local `predict`'s speed one actor of the ray engine keeps, and what it writes."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from artifactnet.cli.arguments import add_value, natural, positive
from artifactnet.cluster.engine import Resources, need_ray, predict_on_ray, started
from artifactnet.cluster.job import ModelChoice, make_job
from artifactnet.cluster.worker import UnitResult
from artifactnet.inference.folder import predict_to_folder
from artifactnet.inference.predictor import Predictor
from artifactnet.types import ArtifactNetError, Prediction
from perf.harness import add_report_options, check_out, make_report, spread, write_report
from perf.predict import make_crops, open_predictor


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        model: what ``predict --model`` takes.
        images: JPEG files, crops of the packaged photographs.
        size: side of each, pixels; smaller where its photograph is.
        part_images: images of a unit, about; the first unit is not timed, nor as many images of
            the local engine.
        actors: of the ray engine.
        threads: processor threads of each model.
        workers: threads that decode, of each.
        batch_size: images that pass through the model together.
        heatmaps: whether maps are made and written.
        repeats: rounds; in each, both engines predict all images, in turn.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    model: str = "student-nano"
    images: int = 400
    size: int = 512
    part_images: int = 50
    actors: int = 1
    threads: int = 1
    workers: int = 0
    batch_size: int = 8
    heatmaps: bool = True
    repeats: int = 5
    device: str = "auto"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    option = parser.add_argument
    option("--model", default="student-nano", metavar="PATH", help="as for predict")
    add_value(parser, "--images", positive, 400, "files (400)")
    add_value(parser, "--size", positive, 512, "side of each (512)", metavar="PIXELS")
    add_value(parser, "--part-images", positive, 50, "images of a unit, about (50)")
    add_value(parser, "--actors", positive, 1, "of the ray engine (1)")
    add_value(parser, "--threads", positive, 1, "of each model (1)")
    add_value(parser, "--workers", natural, 0, "threads that decode, of each (0)")
    option("--batch-size", type=positive, default=8, metavar="N")
    option("--no-heatmaps", action="store_true", help="make and write no pictures")
    option("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run, print and write the report."""
    check_out(args.out)
    setting = Setting(
        model=args.model, images=args.images, size=args.size, part_images=args.part_images,
        actors=args.actors, threads=args.threads, workers=args.workers, batch_size=args.batch_size,
        heatmaps=not args.no_heatmaps, repeats=args.repeats, device=args.device,
    )  # fmt: skip
    report = benchmark_ray(setting)
    write_report(args.out, report)
    for name in ("local", "ray"):
        speed = report["forms"][name]["images_per_second"]
        print(
            f"{name:<6} {speed['median']:8.2f} images/s ({speed['min']:.2f} to {speed['max']:.2f})"
        )
    share, first = report["share_per_actor"], report["seconds_to_first_unit"]
    print(
        f"an actor has {share['median']:.1%} of the local engine's speed ({share['min']:.1%} to "
        f"{share['max']:.1%})\n"
        f"{first['median']:.1f} s until the first unit ({first['min']:.1f} to {first['max']:.1f})\n"
        f"{report['bytes_per_row']:.0f} bytes per image written"
    )
    return 0


def benchmark_ray(setting: Setting) -> dict[str, Any]:
    """The report, see `perf.harness.make_report`.

    Returns:
        ``forms``: images per second of each engine in each round, after the first unit;
        ``share_per_actor``: the ray engine's, divided by the actors, to the local engine's, round
        by round; ``seconds_to_first_unit`` of the ray engine, its cluster running;
        ``bytes_per_row`` of its parts.

    Raises:
        ArtifactNetError: an image could not be predicted, or see `predict_on_ray`.
    """
    # ray's processes give way to all others by default, which the local engine does not
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - so it is called
    need_ray()
    speeds: dict[str, list[float]] = {"local": [], "ray": []}
    firsts: list[float] = []
    size = 0
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_crops(folder / "photos", setting.images, setting.size)
        predictor = open_predictor(setting.model, setting.device, setting.threads)
        with started(cpus=setting.actors * setting.threads):
            for number in range(setting.repeats):
                forms: list[tuple[str, Callable[[Path], float]]] = [
                    ("local", lambda out: _local(predictor, setting, folder / "photos", out)),
                    ("ray", lambda out: _ray(predictor, setting, folder / "photos", out, firsts)),
                ]
                for form, measure in forms if number % 2 == 0 else forms[::-1]:
                    out = folder / f"{form}-{number}"
                    speeds[form].append(measure(out))
                    if form == "ray":
                        size = sum(part.stat().st_size for part in out.glob("predictions/*"))
    pairs = zip(speeds["ray"], speeds["local"], strict=True)
    return make_report(
        "ray",
        asdict(setting),
        "local",
        forms={form: {"images_per_second": spread(of)} for form, of in speeds.items()},
        share_per_actor=spread(ray / setting.actors / local for ray, local in pairs),
        seconds_to_first_unit=spread(firsts),
        bytes_per_row=size / setting.images,
    )


def _local(predictor: Predictor, setting: Setting, photos: Path, out: Path) -> float:
    """Images per second of `predict` into a folder."""
    times: list[float] = []

    def look(_: Prediction) -> None:
        times.append(time.perf_counter())

    done = predict_to_folder(
        predictor, [photos], out, heatmaps=setting.heatmaps, batch_size=setting.batch_size,
        workers=setting.workers, report=look,
    )  # fmt: skip
    if done.failures:
        raise ArtifactNetError(f"{done.failures[0].path}: {done.failures[0].reason}")
    skipped = min(setting.part_images, setting.images // 2)
    return (len(times) - skipped) / (times[-1] - times[skipped - 1])


def _ray(
    predictor: Predictor, setting: Setting, photos: Path, out: Path, firsts: list[float]
) -> float:
    """Images per second of a job of the ray engine, after its first unit."""
    options = predictor.options(setting.batch_size, setting.workers, setting.heatmaps)
    model = ModelChoice(setting.model, setting.device, threads=setting.threads)
    job = make_job([str(photos)], str(out), model, predictor, options, setting.part_images)
    done: list[tuple[float, int]] = []

    def look(result: UnitResult) -> None:
        done.append((time.perf_counter(), result.counts.rows))

    begun = time.perf_counter()
    actors = (setting.actors, setting.actors)
    summary = predict_on_ray(job, Resources(actors, cpus=setting.threads), report=look)
    if summary.counts.errors or summary.lost:
        raise ArtifactNetError("an image could not be predicted")
    if len(done) <= setting.actors:
        raise ArtifactNetError("too few units: use more images, or smaller parts")
    first = done[setting.actors - 1][0]
    firsts.append(done[0][0] - begun)
    return sum(rows for _, rows in done[setting.actors :]) / (done[-1][0] - first)
