"""``benchmark alignment-step`` and ``benchmark alignment-plot``."""

from __future__ import annotations

import argparse
from typing import Any

from artifactnet.cli.arguments import Commands, names, positive
from artifactnet.cli.benchmark_report import add_report_options, check_out, write


def add_alignment_step(benchmarks: Commands, common: argparse.ArgumentParser) -> None:
    """Add the benchmark of training steps.

    Args:
        benchmarks: what ``add_subparsers`` returned.
        common: parent parser with the options that every subcommand takes.
    """
    step = benchmarks.add_parser(
        "alignment-step", parents=[common], help="time and memory that alignment adds to training"
    )
    step.add_argument("--backbone", default="vit_small_patch14_dinov2", metavar="NAME")
    step.add_argument(
        "--size",
        type=positive,
        nargs="+",
        metavar="PIXELS",
        help="one or several sides (518; none with --memory-sizes)",
    )
    step.add_argument("--batch-size", type=positive, default=1, metavar="N")
    step.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="half precision by autocast; float16 with a fixed loss scale",
    )
    step.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    step.add_argument("--method", choices=("rollout", "gradient_rollout"), default="rollout")
    step.add_argument(
        "--forms",
        type=names,
        default=[],
        metavar="NAMES",
        help="some of the method's forms, with commas and dashes: fused,stored-row",
    )
    step.add_argument(
        "--start-layer",
        type=int,
        default=0,
        metavar="N",
        help="first block of the map; -4: the last four",
    )
    step.add_argument(
        "--every", type=positive, default=1, metavar="N", help="align at every N-th step"
    )
    step.add_argument(
        "--memory-sizes",
        type=positive,
        nargs="+",
        default=[],
        metavar="PIXELS",
        help="sides at which memory alone is measured, for a line over N",
    )
    step.add_argument("--no-memory", action="store_true", help="measure time alone at --size")
    step.add_argument("--plot", metavar="SVG", help="file for cost against N, SVG or PNG")
    add_report_options(step)
    step.set_defaults(run=_step)


def add_alignment_plot(benchmarks: Commands, common: argparse.ArgumentParser) -> None:
    """Add the plot of several reports.

    Args:
        benchmarks: what ``add_subparsers`` returned.
        common: parent parser with the options that every subcommand takes.
    """
    plot = benchmarks.add_parser(
        "alignment-plot", parents=[common], help="draw reports of alignment-step together"
    )
    plot.add_argument("reports", nargs="+", metavar="REPORT", help="JSON files of alignment-step")
    plot.add_argument("--out", required=True, metavar="SVG", help="file for the plot, SVG or PNG")
    plot.set_defaults(run=_plot)


def _step(args: argparse.Namespace) -> int:
    from artifactnet.engine.benchmark_plot import check_plot, plot_costs

    check_out(args.out, args.plot)
    if args.plot:
        check_plot(args.plot)
    from artifactnet.engine.benchmark_alignment import benchmark_alignment
    from artifactnet.engine.benchmark_step import StepSetting

    setting = StepSetting(
        backbone=args.backbone,
        batch_size=args.batch_size,
        dtype=args.dtype,
        device=args.device,
        method=args.method,
        start_layer=args.start_layer,
        every=args.every,
    )
    report = benchmark_alignment(
        setting,
        sizes=args.size or ([] if args.memory_sizes else [518]),
        memory_sizes=args.memory_sizes,
        forms=[form.replace("-", " ") for form in args.forms],
        repeats=args.repeats,
        memory=not args.no_memory,
    )
    write(args.out, report)
    _print_report(report)
    if args.plot:
        plot_costs([report], args.plot)
    return 0


def _plot(args: argparse.Namespace) -> int:
    from artifactnet.engine.benchmark_plot import check_plot, plot_costs, read_report

    check_out(args.out)
    check_plot(args.out)
    plot_costs([read_report(path) for path in args.reports], args.out)
    return 0


def _print_report(report: dict[str, Any]) -> None:
    setting, floor = report["setting"], report["floor"]
    keys = ("backbone", "method", "dtype", "device", "batch_size", "start_layer", "every")
    print(", ".join(f"{key} {setting[key]}" for key in keys))
    for row in report["steps"]:
        print(f"\n{row['size']} px, {row['tokens']} tokens: seconds a step, ratio to {floor}")
        for form, found in row["forms"].items():
            print(f"  {form:<19} {_time_words(found)}")
        if "roofline" in row:
            _print_roofline(row["roofline"])
    for row in report["memory"]:
        print(
            f"\n{row['size']} px, {row['tokens']} tokens: MB beyond {floor} at the peak, share of "
            f"what {report['baseline']} adds"
        )
        for form, found in row["forms"].items():
            print(f"  {form:<19} {_memory_words(found)}")
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


def _time_words(found: dict[str, Any]) -> str:
    if found["out_of_memory"]:
        return "out of memory"
    seconds, ratio = found["seconds"]["median"], found["ratio"]
    return (
        f"{seconds:9.4f} s  {ratio['median']:6.3f} x ({ratio['min']:.3f} to {ratio['max']:.3f})"
        f"  CPU {found['cpu_ratio']['median']:.3f} x  {found['images_per_second']:.2f} images/s"
    )


def _memory_words(found: dict[str, Any] | None) -> str:
    if found is None:
        return "out of memory"
    return (
        f"{found['extra_megabytes']:9.1f} MB  {_number(found['share_of_baseline'], '.3f')}"
        f"  (peak {found['peak_megabytes']:.0f} MB)"
    )


def _print_roofline(found: dict[str, Any]) -> None:
    if "reason" in found:
        print(f"  no kernel times: {found['reason']}")
        return
    peaks = found["peaks"]
    print(
        f"  kernels, against {peaks['bytes_per_second'] / 1e12:.2f} TB/s, "
        f"{peaks['flops_per_second'] / 1e12:.0f} TFLOP/s and "
        f"{peaks['exponentials_per_second'] / 1e12:.2f}e12 exponentials/s measured in this run:"
    )
    for name, row in found["products"].items():
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
