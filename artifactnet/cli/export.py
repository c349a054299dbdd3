"""``export``: a model as a file that other programs run."""

from __future__ import annotations

import argparse

from artifactnet.cli import arguments


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``export``."""
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
    arguments.add_images_option(
        parser,
        "what to check and calibrate with: files, folders, shards, patterns; by default the "
        "embedded photographs and their edits",
    )
    arguments.add_value(parser, "--check", arguments.positive, 16, "images to check with (16)")
    option("--int8", action="store_true", help="quantise to 8 bits")
    arguments.add_value(
        parser,
        "--calibrate",
        arguments.positive,
        64,
        "with --int8: images to calibrate with (64); none of them is checked with",
    )
    arguments.add_value(
        parser,
        "--keep-float",
        arguments.names,
        [],
        "with --int8: layers to leave alone, with commas between them; patterns are allowed",
        metavar="LAYERS",
    )
    option("--no-heatmap", action="store_true", help="export the verdict alone")
    option("--overwrite", action="store_true", help="replace an existing file")


def run_export(args: argparse.Namespace) -> int:
    """Run ``export``; returns the exit code."""
    from artifactnet.exporters.export import export_model

    done = export_model(
        args.model, args.out, args.images, check=args.check, heatmap=not args.no_heatmap,
        int8=args.int8, calibrate=args.calibrate, keep_float=args.keep_float,
        overwrite=args.overwrite,
    )  # fmt: skip
    arguments.print_warnings(done.warnings)
    arguments.print_failures(done.failures)
    print(f"{done.path}: {', '.join(done.facts.outputs)}; {done.agreement}")
    if args.int8:
        print(f"calibrated on {done.facts.calibrated} of {args.calibrate} images asked for")
    if done.facts.kept_float is not None:
        print(f"left in floating point: {', '.join(done.facts.kept_float) or 'nothing'}")
    return 0
