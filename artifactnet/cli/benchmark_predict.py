"""``benchmark predict``: a folder beside the bare model, and memory on the way through it."""

from __future__ import annotations

import argparse
from typing import Any

from artifactnet.cli.arguments import Commands, natural, positive
from artifactnet.cli.benchmark_report import add_report_options, check_out, write


def add_predict_speed(benchmarks: Commands, common: argparse.ArgumentParser) -> None:
    """Add the benchmark.

    Args:
        benchmarks: subcommands of ``benchmark``.
        common: parent parser with the options that every subcommand takes.
    """
    parser = benchmarks.add_parser(
        "predict", parents=[common], help="a folder beside the model alone, and memory"
    )
    parser.add_argument("--model", default="student-nano", metavar="PATH", help="as for predict")
    parser.add_argument(
        "--images", type=positive, default=1000, metavar="N", help="files in the folder (1000)"
    )
    parser.add_argument(
        "--size", type=positive, default=512, metavar="PIXELS", help="side of each (512)"
    )
    parser.add_argument(
        "--timed", type=positive, default=64, metavar="N", help="images of each timed round (64)"
    )
    parser.add_argument(
        "--workers",
        type=natural,
        nargs="+",
        default=[0, 2],
        metavar="N",
        help="threads of each form; memory is that of the last (0 2)",
    )
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N")
    parser.add_argument("--no-heatmaps", action="store_true", help="make and write no pictures")
    parser.add_argument("--threads", type=natural, default=0, metavar="N", help="of the model")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add_report_options(parser)
    parser.set_defaults(run=_predict)


def _predict(args: argparse.Namespace) -> int:
    from artifactnet.experiments.benchmark_predict import Setting, benchmark_predict

    check_out(args.out)
    setting = Setting(
        model=args.model,
        images=args.images,
        size=args.size,
        timed=args.timed,
        workers=args.workers,
        batch_size=args.batch_size,
        heatmaps=not args.no_heatmaps,
        repeats=args.repeats,
        threads=args.threads,
        device=args.device,
    )
    report = benchmark_predict(setting)
    write(args.out, report)
    for form, found in report["forms"].items():
        speed, share, less = (
            found[key] for key in ("images_per_second", "share_of_bare_model", "times_less_cpu")
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
