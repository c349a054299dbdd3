"""``benchmark``: how fast this is on your machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from artifactnet.cli import common_options, run
from artifactnet.cli.arguments import Commands, names, natural, positive


def add_report_options(parser: argparse.ArgumentParser, repeats: int = 5) -> None:
    """``--repeats`` and ``--out``.

    Args:
        parser: of a benchmark.
        repeats: the default.
    """
    parser.add_argument(
        "--repeats", type=positive, default=repeats, metavar="N", help=f"of each form ({repeats})"
    )
    parser.add_argument("--out", metavar="JSON", help="file for the report")


def check_out(*outs: str | None) -> None:
    """Refuse places for files that cannot be written, before the long work.

    Raises:
        ArtifactNetError: a path is a folder or lies below a file.
    """
    from artifactnet.benchmarks.xaigd.tables import check_outputs

    for out in outs:
        if out:
            check_outputs(out)


def write(out: str | None, report: dict[str, Any]) -> None:
    """Write a report where that was asked for.

    Raises:
        OSError: the file cannot be written.
    """
    from artifactnet.files import write_json

    if out:
        write_json(out, report)


def print_forms(forms: dict[str, Any], indent: str = "") -> None:
    """Print seconds and ratios of forms.

    Args:
        forms: name -> `perf.harness.summary`.
        indent: before every line.
    """
    for form, result in forms.items():
        print(f"{indent}{form}")
        for key, unit in (("seconds", "s"), ("times_faster", "x"), ("times_less_cpu", "x")):
            spread = result[key]
            print(
                f"{indent}  {key.replace('_', ' '):<15} {spread['median']:8.3f} {unit} "
                f"({spread['min']:.3f} to {spread['max']:.3f})"
            )


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
    from perf.alignment_plot import check_plot, plot_costs

    check_out(args.out, args.plot)
    if args.plot:
        check_plot(args.plot)
    from perf.alignment_step import StepSetting, benchmark_alignment

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
    from perf.alignment_plot import check_plot, plot_costs, read_report

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
    from perf.predict import Setting, benchmark_predict

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


def main(argv: Sequence[str] | None = None) -> int:
    """``python tools/benchmark.py NAME ...``; exit codes as of the ``artifactnet`` command.

    Args:
        argv: arguments after the program's name; None takes them from ``sys.argv``.
    """
    common = common_options()
    parser = argparse.ArgumentParser(
        prog="tools/benchmark.py",
        description="Time this beside another way on your machine.",
        allow_abbrev=False,
    )
    benchmarks = parser.add_subparsers(title="benchmarks", metavar="NAME", required=True)
    add_alignment_step(benchmarks, common)
    add_alignment_plot(benchmarks, common)
    _add_maps(benchmarks, common)
    _add_loader(benchmarks, common)
    _add_metrics(benchmarks, common)
    _add_student(benchmarks, common)
    add_predict_speed(benchmarks, common)
    return run(parser, argv)


def _add_metrics(benchmarks: Commands, common: argparse.ArgumentParser) -> None:
    metrics = benchmarks.add_parser("metrics", parents=[common], help="instance scoring")
    metrics.add_argument("--images", type=positive, default=300, metavar="N")
    metrics.add_argument("--size", type=positive, default=1024, metavar="PIXELS", help="their side")
    metrics.add_argument("--polygons", type=positive, default=6, metavar="N", help="in each image")
    metrics.add_argument("--boxes", type=positive, default=20, metavar="N", help="in each image")
    metrics.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="also time N processes"
    )
    add_report_options(metrics)
    metrics.set_defaults(run=_metrics)


def _add_maps(benchmarks: Commands, common: argparse.ArgumentParser) -> None:
    maps = benchmarks.add_parser(
        "explain-maps", parents=[common], help="time and memory of attention maps"
    )
    maps.add_argument("--backbone", default="vit_small_patch14_dinov2", metavar="NAME")
    maps.add_argument("--size", type=positive, default=518, metavar="PIXELS")
    maps.add_argument("--batch-size", type=positive, default=1, metavar="N")
    add_report_options(maps)
    maps.set_defaults(run=_maps)


def _add_loader(benchmarks: Commands, common: argparse.ArgumentParser) -> None:
    loader = benchmarks.add_parser(
        "loader", parents=[common], help="images per second of a run's training loader"
    )
    loader.add_argument(
        "config",
        nargs="?",
        default="dinov2_align",
        metavar="CONFIG",
        help="a YAML file, or the name of a recipe (dinov2_align)",
    )
    loader.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train")
    loader.add_argument(
        "--workers",
        type=natural,
        nargs="+",
        default=[0, 1, 2],
        metavar="N",
        help="processes of the loader (0 1 2)",
    )
    add_report_options(loader, repeats=3)
    loader.set_defaults(run=_loader)


def _add_student(benchmarks: Commands, common: argparse.ArgumentParser) -> None:
    student = benchmarks.add_parser(
        "student", parents=[common], help="students beside a large teacher: cost and time"
    )
    student.add_argument(
        "--students",
        type=names,
        default=["student_nano", "student_small"],
        metavar="RECIPES",
        help="with commas (student_nano,student_small)",
    )
    student.add_argument("--teacher", default="vit_large_patch14_dinov2", metavar="BACKBONE")
    student.add_argument("--teacher-size", type=positive, default=518, metavar="PIXELS")
    student.add_argument("--size", type=positive, default=512, metavar="PIXELS")
    student.add_argument(
        "--formats",
        type=names,
        default=["onnx", "openvino"],
        metavar="NAMES",
        help="of onnx,onnx-int8,openvino,openvino-int8; each student also runs in PyTorch",
    )
    student.add_argument("--threads", type=positive, metavar="N", help="of every runtime")
    add_report_options(student)
    student.set_defaults(run=_student)


def _metrics(args: argparse.Namespace) -> int:
    from perf.harness import benchmark_metrics

    check_out(args.out)
    report = benchmark_metrics(
        images=args.images,
        size=args.size,
        polygons=args.polygons,
        boxes=args.boxes,
        repeats=args.repeats,
        workers=args.workers,
    )
    write(args.out, report)
    print_forms(report["forms"])
    print(f"compared with the {report['baseline']} form; all give the same numbers")
    return 0


def _maps(args: argparse.Namespace) -> int:
    from perf.maps import benchmark_maps

    check_out(args.out)
    report = benchmark_maps(args.backbone, args.size, args.batch_size, args.repeats)
    write(args.out, report)
    for method, found in report["methods"].items():
        print(f"{method}, {report['setting']['tokens']} tokens")
        print_forms(found["forms"], "  ")
        for form, size in found["extra_megabytes"].items():
            print(f"    {form}: {size:.0f} MB more than a forward pass at its peak")
    print(f"compared with the {report['baseline']} form; all give the same maps")
    return 0


def _loader(args: argparse.Namespace) -> int:
    from artifactnet import load_config

    config, overrides = args.config, args.overrides
    if "=" in config:  # the recipe may be left out before overrides
        config, overrides = "dinov2_align", [config, *overrides]
    resolved = load_config(config, overrides)  # a mistake shows before the slow import
    from perf.loader import benchmark_loader

    check_out(args.out)
    report = benchmark_loader(resolved, args.workers, args.repeats)
    write(args.out, report)
    print(f"{report['setting']['images']} images an epoch; images per second, and times faster:")
    for form, found in report["forms"].items():
        speed, ratio = found["images_per_second"], found["times_faster"]
        print(
            f"  {form:<12} {speed['median']:8.1f} ({speed['min']:.1f} to {speed['max']:.1f})"
            f"  {ratio['median']:6.2f} x ({ratio['min']:.2f} to {ratio['max']:.2f})"
        )
    print(f"compared with the {report['baseline']}; all give the same images")
    return 0


def _student(args: argparse.Namespace) -> int:
    from perf.student import benchmark_student

    check_out(args.out)
    report = benchmark_student(
        students=args.students,
        teacher=args.teacher,
        teacher_size=args.teacher_size,
        size=args.size,
        formats=args.formats,
        repeats=args.repeats,
        threads=args.threads,
    )
    write(args.out, report)
    for name, found in report["models"].items():
        print(
            f"{name}: {found['parameters'] / 1e6:.2f} M parameters, "
            f"{found['multiply_adds'] / 1e9:.2f} G multiply-adds an image, "
            f"{found['times_fewer']:.1f} times fewer than the teacher"
        )
    print_forms(report["forms"])
    print(f"one image at a time; compared with the {report['baseline']}")
    return 0
