"""``benchmark``: how fast this is on your machine."""

from __future__ import annotations

import argparse
from typing import Any

from artifactnet.cli.arguments import Commands, positive


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
    metrics = benchmarks.add_parser("metrics", parents=[common], help="instance scoring")
    metrics.add_argument("--images", type=positive, default=300, metavar="N")
    metrics.add_argument("--size", type=positive, default=1024, metavar="PIXELS", help="their side")
    metrics.add_argument("--polygons", type=positive, default=6, metavar="N", help="in each image")
    metrics.add_argument("--boxes", type=positive, default=20, metavar="N", help="in each image")
    metrics.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="also time N processes"
    )
    metrics.set_defaults(run=_metrics)
    maps = benchmarks.add_parser(
        "explain-maps", parents=[common], help="time and memory of attention maps"
    )
    maps.add_argument("--backbone", default="vit_small_patch14_dinov2", metavar="NAME")
    maps.add_argument("--size", type=positive, default=518, metavar="PIXELS")
    maps.add_argument("--batch-size", type=positive, default=1, metavar="N")
    maps.set_defaults(run=_maps)
    for each in (metrics, maps):
        each.add_argument("--repeats", type=positive, default=5, metavar="N")
        each.add_argument("--out", metavar="JSON", help="file for the report")


def _metrics(args: argparse.Namespace) -> int:
    from artifactnet.engine.benchmark import benchmark_metrics

    _check_out(args.out)
    report = benchmark_metrics(
        images=args.images,
        size=args.size,
        polygons=args.polygons,
        boxes=args.boxes,
        repeats=args.repeats,
        workers=args.workers,
    )
    _write(args.out, report)
    _print_forms(report["forms"])
    print(f"compared with the {report['baseline']} form; all give the same numbers")
    return 0


def _maps(args: argparse.Namespace) -> int:
    from artifactnet.engine.benchmark_maps import benchmark_maps

    _check_out(args.out)
    report = benchmark_maps(args.backbone, args.size, args.batch_size, args.repeats)
    _write(args.out, report)
    for method, found in report["methods"].items():
        print(f"{method}, {report['setting']['tokens']} tokens")
        _print_forms(found["forms"], "  ")
        for form, size in found["extra_megabytes"].items():
            print(f"    {form}: {size:.0f} MB more than a forward pass at its peak")
    print(f"compared with the {report['baseline']} form; all give the same maps")
    return 0


def _check_out(out: str | None) -> None:
    from artifactnet.engine.score_tables import check_outputs

    if out:
        check_outputs(out)


def _write(out: str | None, report: dict[str, Any]) -> None:
    from artifactnet.files import write_json

    if out:
        write_json(out, report)


def _print_forms(forms: dict[str, Any], indent: str = "") -> None:
    for form, result in forms.items():
        print(f"{indent}{form}")
        for key, unit in (("seconds", "s"), ("times_faster", "x"), ("times_less_cpu", "x")):
            spread = result[key]
            print(
                f"{indent}  {key.replace('_', ' '):<15} {spread['median']:8.3f} {unit} "
                f"({spread['min']:.3f} to {spread['max']:.3f})"
            )
