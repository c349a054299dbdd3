"""``convert``: data sets of other forms become manifests."""

from __future__ import annotations

import argparse
import sys

from artifactnet.cli.arguments import Commands
from artifactnet.data.converters import FORMATS


def add_convert(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "convert", parents=[common], help="make a manifest of annotated images, to train on or mix"
    )
    option = parser.add_argument
    option("format", choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    option(
        "source",
        metavar="SOURCE",
        help="richhf: folder of TFRecords; expl_aigi_eval: JSON lines; abhuman: folder of masks or "
        "COCO JSON of boxes; folder: real/ and fake/; demo: a config (dinov2_align, ...) whose "
        "data.demo_* keys say which images",
    )
    option("--images", metavar="DIR", help="the images; not with folder, demo")
    option("--out", required=True, metavar="DIR", help="folder for manifest and maps")
    option("--name", metavar="NAME", help="of the manifest; default: the format's")
    option("--generator", metavar="NAME", help="what made the images; not with folder")
    option("--overwrite", action="store_true", help="replace a manifest of the same name")
    parser.set_defaults(run=_convert)


def _convert(args: argparse.Namespace) -> int:
    from artifactnet.data.converters.convert import convert_dataset

    made = convert_dataset(
        args.format, args.source, args.out, images=args.images, name=args.name,
        generator=args.generator, overwrite=args.overwrite,
    )  # fmt: skip
    print(", ".join(f"{count} {what}" for what, count in made.counts.items()))
    for line in made.warnings:
        print(f"warning: {line}", file=sys.stderr)
    print(f"{made.manifest}: train on it with data.name=manifest data.root={made.manifest}")
    return 0
