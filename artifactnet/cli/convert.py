"""``convert``: data sets of other forms become manifests."""

from __future__ import annotations

import argparse
import sys

from artifactnet.cli import arguments
from artifactnet.data.converters import FORMATS


def add_convert_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``convert``."""
    option = parser.add_argument
    option("format", choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    option(
        "source",
        metavar="SOURCE",
        help="richhf: folder of TFRecords; expl_aigi_eval, fakexplain: JSON lines; abhuman: folder "
        "of masks or COCO JSON of boxes; coco: COCO JSON of captioned boxes; labelme: folder of "
        "its JSON files; xaigd_boxes: folder of X-AIGD's shards; fakeclue, synthscars: folder of "
        "the data set; folder: real/ and fake/; demo: a config (dinov2_align, ...) whose "
        "data.demo_* keys say which images",
    )
    option(
        "--images",
        metavar="DIR",
        help="the images; not with folder, demo; labelme, fakeclue, synthscars: SOURCE by default; "
        "xaigd_boxes: the photographs, SOURCE/real by default",
    )
    option("--out", required=True, metavar="DIR", help="folder for manifest and maps")
    option("--name", metavar="NAME", help="of the manifest; default: the format's")
    option("--generator", metavar="NAME", help="what made the images; not with folder")
    option("--texts", action="store_true", help="fakeclue: keep the explanations")
    option("--overwrite", action="store_true", help="replace a manifest of the same name")


def run_convert(args: argparse.Namespace) -> int:
    """Run ``convert``; returns the exit code."""
    from artifactnet.data.converters.convert import convert_dataset

    result = convert_dataset(
        args.format, args.source, args.out, images=args.images, name=args.name,
        generator=args.generator, overwrite=args.overwrite, texts=args.texts,
    )  # fmt: skip
    print(", ".join(f"{count} {what}" for what, count in result.counts.items()))
    for line in result.warnings:
        arguments.print_line(f"warning: {line}", sys.stderr)
    print(f"{result.manifest}: train on it with data.name=manifest data.root={result.manifest}")
    return 0
