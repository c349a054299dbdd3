"""``export``: a model as a file that other programs run."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from artifactnet.cli.arguments import Commands, names, positive, print_failures

if TYPE_CHECKING:
    from artifactnet import ArtifactNet
    from artifactnet.types import UInt8Array

_FEW = 16  # images; ranges that are met on fewer say little about others
_LARGEST_DEMO = 512  # pixels; the packaged photographs are little larger


def add_export(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand.

    Args:
        commands: what ``add_subparsers`` returned.
        common: parent parser with the options that every subcommand takes.
    """
    parser = commands.add_parser(
        "export",
        parents=[common],
        help="write a model as ONNX, OpenVINO or torch.export file, checked against it",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="PATH",
        help="a run folder, a .safetensors file, or a packaged model",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="the name tells the format: .onnx, .xml (OpenVINO) or .pt2 (torch.export)",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="IMAGES",
        help="what to check and calibrate with: files, folders, shards, patterns; by default the "
        "embedded photographs and their edits",
    )
    parser.add_argument(
        "--check", type=positive, default=16, metavar="N", help="images to check with (16)"
    )
    parser.add_argument("--int8", action="store_true", help="quantise to 8 bits")
    parser.add_argument(
        "--calibrate",
        type=positive,
        default=64,
        metavar="N",
        help="with --int8: images to calibrate with (64); none of them is checked with",
    )
    parser.add_argument(
        "--keep-float",
        type=names,
        default=[],
        metavar="LAYERS",
        help="with --int8: layers to leave alone, with commas between them; patterns are allowed",
    )
    parser.add_argument("--no-heatmap", action="store_true", help="export the verdict alone")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    from artifactnet import ArtifactNet, load_model
    from artifactnet.exporters.export import Int8, export_model
    from artifactnet.types import ArtifactNetError

    if args.keep_float and not args.int8:
        raise ArtifactNetError("--keep-float is a matter of int8; add --int8")
    model = load_model(args.model, device="cpu").model
    assert isinstance(model, ArtifactNet)  # it was loaded from weights
    for notice in model.notices:
        print(f"artifactnet: warning: {notice}", file=sys.stderr)
    calibrate = args.calibrate if args.int8 else 0
    if args.images:
        check, calibration = _named(model, args.images, args.check, calibrate)
    else:
        check, calibration = _embedded(args.check, calibrate, max(model.image_size))
    if 0 < len(calibration) < _FEW:
        print(
            f"artifactnet: warning: int8 will be calibrated on {len(calibration)} images, fewer "
            f"than {_FEW}: others may not fit its ranges; give more --images",
            file=sys.stderr,
        )
    done = export_model(
        model,
        args.out,
        check,
        heatmap=not args.no_heatmap,
        int8=Int8(calibration, args.keep_float) if args.int8 else None,
        overwrite=args.overwrite,
    )
    print(f"{done.path}: {', '.join(done.facts.outputs)}; {done.agreement}")
    if args.int8:
        print(f"calibrated on {len(calibration)} of {calibrate} images asked for")
    if done.facts.kept_float is not None:
        print(f"left in floating point: {', '.join(done.facts.kept_float) or 'nothing'}")
    return 0


def _named(
    model: ArtifactNet, inputs: list[str], check: int, calibrate: int
) -> tuple[list[UInt8Array], list[UInt8Array]]:
    """Images of the user at model size, spread evenly over all, first to check with."""
    from artifactnet.exporters.export import frame_of
    from artifactnet.inference.collect import resolve, spread
    from artifactnet.inference.inputs import Failure, to_pixels
    from artifactnet.types import ArtifactNetError

    found = resolve(inputs, skip="")
    failures = list(found.failures)
    images: list[UInt8Array] = []
    for source in spread(found, check + calibrate):
        if isinstance(source, Failure):
            failures.append(source)
            continue
        try:
            # one original at a time: a photograph may be a hundred times its frame
            images.append(frame_of(model, to_pixels(source.image, source.name)))
        except ArtifactNetError as error:
            reason = str(error).removeprefix(f"{source.name}: ")
            failures.append(Failure(source.name, reason))
    print_failures(failures)
    # of too few, each purpose gets its share
    share = round(len(images) * check / (check + calibrate))
    step = len(images) / share if share else 1
    chosen = {int(k * step) for k in range(share)}
    return (
        [image for k, image in enumerate(images) if k in chosen],
        [image for k, image in enumerate(images) if k not in chosen],
    )


def _embedded(check: int, calibrate: int, side: int) -> tuple[list[UInt8Array], list[UInt8Array]]:
    """Packaged photographs and edits of them: unseen ones to check with, others to calibrate."""
    from artifactnet.config import DataConfig
    from artifactnet.data.sources.demo import build_demo_splits
    from artifactnet.data.synthetic.edits import MIN_SIDE

    config = DataConfig(
        demo_size=min(max(side, MIN_SIDE), _LARGEST_DEMO),
        demo_train=-(-calibrate // 2),
        demo_val=0,
        demo_test=-(-check // 2),
    )
    splits = build_demo_splits(config, seed=0)
    found: list[list[UInt8Array]] = []
    for split, count in (("test", check), ("train", calibrate)):
        found.append([splits[split].load(k).image for k in range(count)])
    return found[0], found[1]
