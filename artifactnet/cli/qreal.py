"""``qreal``: a data set like Q-Real, by language models and a detector, reviewed by people."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from artifactnet.cli.annotate import add_asking_options, open_chat, print_retries
from artifactnet.cli.arguments import (
    add_allow_missing,
    add_commands,
    add_value,
    names,
    natural,
    positive,
    print_failures,
    print_line,
    print_warnings,
    share,
)

if TYPE_CHECKING:
    from artifactnet.annotation.qreal.annotate import Summary

_STAGES = ("entities", "detect", "quality", "answers")


def add_qreal_options(parser: argparse.ArgumentParser) -> None:
    """The commands of ``qreal`` and their options."""
    add_commands(
        parser,
        (
            (
                "annotate",
                "name, find, rate and describe entities",
                _add_annotate_options,
                _annotate,
            ),
            (
                "export-review",
                "write pages and tables for annotators",
                _add_export_options,
                _export,
            ),
            ("merge-review", "take what annotators agree on", _add_merge_options, _merge),
            (
                "report",
                "write an HTML page of annotations and answers",
                _add_report_options,
                _report,
            ),
            ("split", "divide images into splits by prompt", _add_split_options, _split),
        ),
    )


def run_qreal(args: argparse.Namespace) -> int:
    """Run a command of ``qreal``; returns the exit code."""
    work: Callable[[argparse.Namespace], int] = args.work
    return work(args)


def _add_annotate_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("images", metavar="IMAGES", help="folder of generated images, searched recursively")
    option("--out", required=True, metavar="FILE", help="annotations to write (.jsonl)")
    option(
        "--detector",
        metavar="BASE",
        help="Grounding DINO for transformers, by name or folder (IDEA-Research/"
        "grounding-dino-base)",
    )
    option(
        "--quality",
        required=True,
        metavar="BASE",
        help="vision-language model for transformers that rates crops, by name or folder; none "
        "leaves quality out",
    )
    option("--device", default="auto", help="of both: auto, cpu, cuda, cuda:1, ...")
    add_value(parser, "--threshold", share, 0.25, "score above which a box is found (0.25)")
    add_value(parser, "--max-boxes", positive, 1, "entities of one name in an image (1)")
    option(
        "--generator-folders",
        action="store_true",
        help="IMAGES/GENERATOR/PROMPT.png: images of one prompt share a uid, the first folder "
        "names the generator",
    )
    option("--until", choices=_STAGES, default=_STAGES[-1], help="last stage to run (answers)")
    option("--yes", action="store_true", help="go on where more than 1,000 calls may be needed")
    add_asking_options(parser)


def _annotate(args: argparse.Namespace) -> int:
    from artifactnet.annotation.qreal.annotate import MAX_CALLS, annotate_images
    from artifactnet.inference.load import pick_device
    from artifactnet.vlm.first_words import FirstWords
    from artifactnet.vlm.open_vocabulary import BASE, OpenVocabularyDetector

    device = pick_device(args.device)
    chat = open_chat(args)
    detector = OpenVocabularyDetector(
        args.detector or BASE, device=device, threshold=args.threshold
    )
    scorer = None if args.quality == "none" else FirstWords(args.quality, device=device)
    summary = annotate_images(
        Path(args.images), Path(args.out), chat, detector, scorer,
        until=args.until, attempts=args.attempts, workers=args.workers, max_boxes=args.max_boxes,
        generator_folders=args.generator_folders, max_calls=None if args.yes else MAX_CALLS,
        report=lambda name, what: print_line(f"{name}: {what}", flush=True),
    )  # fmt: skip
    print_warnings(summary.warnings)
    print_retries([chat])
    _print(summary, args.until)
    return 0 if summary.images or args.until != _STAGES[-1] else 1


def _print(summary: Summary, until: str) -> None:
    print(f"{summary.asked} answers, {summary.invalid} invalid answers in all")
    if summary.set_aside:
        print(f"{len(summary.set_aside)} set aside:", file=sys.stderr)
    for image in summary.set_aside:
        print_line(f"  {image.path}: {image.reason}", sys.stderr)
    print_failures(summary.failures)
    if until != _STAGES[-1]:
        print(f"stopped after {until}; the same command without --until goes on")
        return
    print(f"{summary.entities} entities in {summary.images} images, not verified by people")
    if summary.out is not None:
        print_line(str(summary.out))


def _add_export_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("annotations", metavar="FILE", help="annotations (.jsonl)")
    option("out", metavar="DIR", help="folder for pages and tables; must be new or empty")
    option(
        "--annotators",
        type=names,
        default=["1", "2", "3"],
        metavar="NAMES",
        help="names of the annotators, with commas between them (1,2,3)",
    )


def _export(args: argparse.Namespace) -> int:
    from artifactnet.annotation.qreal.review import export_review

    count = export_review(Path(args.annotations), Path(args.out), args.annotators)
    print(f"{count} pages for {len(args.annotators)} annotators")
    print_line(args.out)
    return 0


def _add_merge_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("annotations", metavar="FILE", help="the annotations that were reviewed (.jsonl)")
    option(
        "--review",
        nargs="+",
        required=True,
        metavar="CSV",
        help="answers: entity, annotator, question, answer",
    )
    option(
        "--texts",
        nargs="+",
        default=[],
        metavar="CSV",
        help="descriptions: entity, annotator, dimension, text",
    )
    option("--out", required=True, metavar="FILE", help="annotations to write (.jsonl)")
    add_value(
        parser,
        "--min-votes",
        positive,
        3,
        "annotators of each question (3: exactly as many; fewer are for trials, whose lines stay "
        "marked as not verified)",
    )


def _merge(args: argparse.Namespace) -> int:
    from artifactnet.annotation.qreal.merge import merge_review

    merged = merge_review(
        Path(args.annotations), [Path(p) for p in args.review], [Path(p) for p in args.texts],
        Path(args.out), args.min_votes,
    )  # fmt: skip
    print(
        f"{merged.entities} entities in {merged.images} images, {merged.changed} answers changed; "
        f"{'verified' if merged.verified else 'not verified'} by people"
    )
    print_line(args.out)
    return 0


def _add_split_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("annotations", metavar="FILE", help="annotations (.jsonl); splits that it names stay")
    option("--out", required=True, metavar="FILE", help="annotations to write (.jsonl)")
    add_value(parser, "--test", share, 0.13, "share of the prompts in the test split (0.13)")
    add_value(parser, "--val", share, 0.0, "share of the prompts in the val split (0)")
    add_value(parser, "--seed", natural, 0, "draws other splits (0)")
    add_allow_missing(parser)


def _split(args: argparse.Namespace) -> int:
    from artifactnet.annotation.qreal.split import split_annotations

    divided = split_annotations(
        Path(args.annotations), Path(args.out), args.test, args.val, args.seed, args.allow_missing
    )
    counts = ", ".join(
        f"{name} {count} of {divided.prompts[name]} prompts"
        for name, count in divided.images.items()
    )
    print(f"images: {counts}" + ("" if divided.drawn else "; as the file says"))
    print_line(args.out)
    return 0


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("annotations", metavar="FILE", help="annotations (.jsonl)")
    option(
        "predictions",
        nargs="*",
        metavar="PREDICTIONS.jsonl",
        help="answers of one model to show beside them, object.jsonl and image.jsonl of "
        "benchmark-qreal",
    )
    option("--out", required=True, metavar="PAGE.html", help="page to write")
    option(
        "--split",
        choices=("train", "val", "test", "all"),
        help="images to show (all; with predictions test, or all where no image is in it)",
    )
    option(
        "--coordinates",
        choices=("image", "thousandths"),
        help="as of score-qreal, of answers whose line has no input_size",
    )
    add_value(parser, "--limit", positive, 500, "of more images, N evenly spread (500)")
    option("--title", metavar="TEXT", help="of the page")
    add_allow_missing(parser)


def _report(args: argparse.Namespace) -> int:
    from artifactnet.explanation.report.qreal import write_qreal_report

    found = write_qreal_report(
        args.annotations, args.out, args.predictions, split=args.split, unit=args.coordinates,
        limit=args.limit, title=args.title, allow_missing=args.allow_missing,
    )  # fmt: skip
    print_warnings(found.warnings)
    print_failures(found.failures)
    print(f"{found.images} of {found.of} images on the page")
    print_line(str(found.html))
    return 0 if found.images else 1
