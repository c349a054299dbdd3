"""``benchmark``: how fast this is on your machine."""

from __future__ import annotations

import argparse

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
    parser.add_argument("name", metavar="NAME", help="metrics: instance scoring")
    parser.add_argument("--out", metavar="JSON", help="file for the report")
    parser.add_argument("--images", type=positive, default=300, metavar="N")
    parser.add_argument("--size", type=positive, default=1024, metavar="PIXELS", help="their side")
    parser.add_argument("--polygons", type=positive, default=6, metavar="N", help="in each image")
    parser.add_argument("--boxes", type=positive, default=20, metavar="N", help="in each image")
    parser.add_argument("--repeats", type=positive, default=5, metavar="N")
    parser.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="also time N processes"
    )
    parser.set_defaults(run=_benchmark)


def _benchmark(args: argparse.Namespace) -> int:
    from artifactnet.engine.benchmark import benchmark
    from artifactnet.engine.score_tables import check_outputs
    from artifactnet.files import write_json

    if args.out:
        check_outputs(args.out)
    report = benchmark(
        args.name,
        images=args.images,
        size=args.size,
        polygons=args.polygons,
        boxes=args.boxes,
        repeats=args.repeats,
        workers=args.workers,
    )
    if args.out:
        write_json(args.out, report)
    for form, result in report["forms"].items():
        print(form)
        for key, unit in (("seconds", "s"), ("times_faster", "x"), ("times_less_cpu", "x")):
            spread = result[key]
            print(
                f"  {key.replace('_', ' '):<15} {spread['median']:8.3f} {unit} "
                f"({spread['min']:.3f} to {spread['max']:.3f})"
            )
    print(f"compared with the {report['baseline']} form; all give the same numbers")
    return 0
