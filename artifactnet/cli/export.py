"""``export``: a model as a file that other programs run."""

from __future__ import annotations

import argparse

from artifactnet.cli.arguments import Commands, names, positive, print_failures, print_warnings


def add_export(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "export",
        parents=[common],
        help="write a model as ONNX, OpenVINO or torch.export file, checked against it",
    )
    option = parser.add_argument
    option(
        "--model",
        required=True,
        metavar="PATH",
        help="a run folder, a .safetensors file, or a packaged model",
    )
    option(
        "--out",
        required=True,
        metavar="FILE",
        help="the name tells the format: .onnx, .xml (OpenVINO) or .pt2 (torch.export)",
    )
    option(
        "--images",
        nargs="+",
        default=[],
        metavar="IMAGES",
        help="what to check and calibrate with: files, folders, shards, patterns; by default the "
        "embedded photographs and their edits",
    )
    option("--check", type=positive, default=16, metavar="N", help="images to check with (16)")
    option("--int8", action="store_true", help="quantise to 8 bits")
    option(
        "--calibrate",
        type=positive,
        default=64,
        metavar="N",
        help="with --int8: images to calibrate with (64); none of them is checked with",
    )
    option(
        "--keep-float",
        type=names,
        default=[],
        metavar="LAYERS",
        help="with --int8: layers to leave alone, with commas between them; patterns are allowed",
    )
    option("--no-heatmap", action="store_true", help="export the verdict alone")
    option("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    from artifactnet.exporters.export import export_model

    done = export_model(
        args.model, args.out, args.images, check=args.check, heatmap=not args.no_heatmap,
        int8=args.int8, calibrate=args.calibrate, keep_float=args.keep_float,
        overwrite=args.overwrite,
    )  # fmt: skip
    print_warnings(done.warnings)
    print_failures(done.failures)
    print(f"{done.path}: {', '.join(done.facts.outputs)}; {done.agreement}")
    if args.int8:
        print(f"calibrated on {done.facts.calibrated} of {args.calibrate} images asked for")
    if done.facts.kept_float is not None:
        print(f"left in floating point: {', '.join(done.facts.kept_float) or 'nothing'}")
    return 0
