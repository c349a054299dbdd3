"""``benchmark``: how fast this is on your machine."""

from __future__ import annotations

import argparse

from artifactnet.cli.arguments import Commands, names, natural, positive
from artifactnet.cli.benchmark_alignment import add_alignment_plot, add_alignment_step
from artifactnet.cli.benchmark_predict import add_predict_speed
from artifactnet.cli.benchmark_report import add_report_options, check_out, print_forms, write


def add_benchmark(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand.

    Args:
        commands: what ``add_subparsers`` returned.
        common: parent parser with the options that every subcommand takes.
    """
    parser = commands.add_parser(
        "benchmark", parents=[common], help="time this beside another way on your machine"
    )
    benchmarks = parser.add_subparsers(title="benchmarks", metavar="NAME", required=True)
    add_alignment_step(benchmarks, common)
    add_alignment_plot(benchmarks, common)
    _add_maps(benchmarks, common)
    _add_loader(benchmarks, common)
    _add_metrics(benchmarks, common)
    _add_student(benchmarks, common)
    add_predict_speed(benchmarks, common)


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
    from artifactnet.engine.benchmark import benchmark_metrics

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
    from artifactnet.engine.benchmark_maps import benchmark_maps

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
    from artifactnet.engine.benchmark_loader import benchmark_loader

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
    from artifactnet.experiments.benchmark_student import benchmark_student

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
