"""``annotate``: language models explain defects that people have marked in images."""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from artifactnet.cli.arguments import add_value, natural, positive, print_failures, print_line

if TYPE_CHECKING:
    from artifactnet.annotation.annotate import Summary
    from artifactnet.llm.client import Chat


def add_annotate_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``annotate``."""
    option = parser.add_argument
    option("images", metavar="IMAGES", help="folder of images, searched recursively")
    option(
        "masks",
        metavar="MASKS",
        help="folder of masks or heatmaps with the same names: gray, 255 is artifact",
    )
    option("--out", required=True, metavar="FILE", help="JSON lines to write (.jsonl)")
    option("--format-model", metavar="NAME", help="model of the last stage (--model)")
    option(
        "--bit-fields",
        action="store_true",
        help="each bit of a mask's pixel is a category, as in the masks of manifests",
    )
    option("--keep-pictures", metavar="DIR", help="keep the images with red lines")
    add_asking_options(parser)


def add_asking_options(parser: argparse.ArgumentParser) -> None:
    """Options of commands that ask an endpoint about many images."""
    option = parser.add_argument
    option(
        "--base-url",
        required=True,
        metavar="URL",
        help="OpenAI-compatible endpoint, including its version: http://localhost:8000/v1",
    )
    option(
        "--model", required=True, metavar="NAME", help="its name at the server; must accept images"
    )
    add_value(
        parser,
        "--attempts",
        positive,
        3,
        "answers to a question before it is given up, earlier runs included (3)",
    )
    option(
        "--api-key-env",
        default="OPENAI_API_KEY",
        metavar="VARIABLE",
        help="environment variable that holds the key (OPENAI_API_KEY)",
    )
    add_value(parser, "--rate", _rate, 0.0, "maximum requests per minute (no limit)")
    add_value(parser, "--workers", positive, 1, "images processed in parallel (1)")
    add_value(
        parser,
        "--retries",
        natural,
        6,
        "retries of a request after 429, 5xx, a timeout or a lost connection (6)",
    )
    add_value(
        parser,
        "--timeout",
        _seconds,
        180.0,
        "silence after which a request has failed (180)",
        metavar="SECONDS",
    )


def run_annotate(args: argparse.Namespace) -> int:
    """Run ``annotate``; returns the exit code."""
    from artifactnet.annotation.annotate import annotate_folder
    from artifactnet.llm.client import Chat

    analyst = open_chat(args)
    formatter = analyst
    if args.format_model:  # the limit is the server's
        formatter = Chat(analyst.endpoint, args.format_model, analyst.limiter)
    summary = annotate_folder(
        Path(args.images), Path(args.masks), Path(args.out), analyst, formatter,
        attempts=args.attempts, workers=args.workers, bit_fields=args.bit_fields,
        pictures=Path(args.keep_pictures) if args.keep_pictures else None,
        report=lambda name, what: print_line(f"{name}: {what}", flush=True),
    )  # fmt: skip
    _print(summary, {id(chat): chat for chat in (analyst, formatter)}.values())
    return 0 if summary.records else 1


def open_chat(args: argparse.Namespace) -> Chat:
    """The model that `add_asking_options` named.

    Raises:
        ArtifactNetError: see `artifactnet.llm.client.Chat`.
    """
    from artifactnet.llm.client import Chat, Endpoint, RateLimiter

    endpoint = Endpoint(args.base_url, args.api_key_env, args.retries, args.timeout)
    return Chat(endpoint, args.model, RateLimiter(args.rate))


def print_retries(chats: Iterable[Chat]) -> None:
    """Say, on standard error, how often requests were repeated, by reason."""
    counts: Counter[str] = Counter()
    for chat in chats:
        counts += chat.counts
    for what in sorted(counts):
        if what.startswith("retried"):
            print(f"{what}: {counts[what]}", file=sys.stderr)


def _print(summary: Summary, chats: Collection[Chat]) -> None:
    """Print the summary; what needs attention goes to standard error."""
    for line in summary.warnings:
        print_line(f"warning: {line}", sys.stderr)
    counts: Counter[str] = Counter()
    for chat in chats:
        counts += chat.counts
    total = summary.records + len(summary.rejected) + len(summary.failures)
    print(
        f"{summary.records} of {total} images explained; {counts['requests']} requests, "
        f"{summary.asked} answers, {summary.invalid} invalid answers in all"
    )
    print_retries(chats)
    if summary.rejected:
        print(f"{len(summary.rejected)} rejected:", file=sys.stderr)
    for image in summary.rejected:
        print_line(f"  {image.path}: {image.reason}", sys.stderr)
    print_failures(summary.failures)
    if summary.out is not None:
        print(summary.out)


def _rate(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text}: must be 0 or more")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value
