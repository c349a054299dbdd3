"""``benchmark-xaigd``: language models on X-AIGD (X-AIGD, App. C)."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifactnet.cli import arguments
from artifactnet.cli.qreal_bench import add_answerer, answerer_options, open_answerer

if TYPE_CHECKING:
    from artifactnet.vlm.questions import Answerer


def add_benchmark_xaigd_options(parser: argparse.ArgumentParser) -> None:
    """The tasks of ``benchmark-xaigd`` and their options."""
    arguments.add_commands(
        parser,
        (
            (
                "presence",
                "does an image show each category (Table 9)",
                _add_presence_options,
                _presence,
            ),
            ("judgment", "real or fake (Table 10)", _add_judgment_options, _judgment),
            ("masks", "a folder of masks (Table 11)", _add_masks_options, _masks),
            (
                "instances",
                "boxes with categories (Table 12)",
                _add_instances_options,
                _instances,
            ),
        ),
        title="tasks",
    )


def run_benchmark_xaigd(args: argparse.Namespace) -> int:
    """Run a task of ``benchmark-xaigd``; returns the exit code."""
    work: Callable[[argparse.Namespace], int] = args.work
    return work(args)


def _add_presence_options(parser: argparse.ArgumentParser) -> None:
    _add_files(parser, "with images if a model is asked")
    _add_answers(parser, 'lines {"generator", "uid", "category", "answer"}')


def _presence(args: argparse.Namespace) -> int:
    from artifactnet.vlm.xaigd.baselines import run_presence

    return _print(run_presence(args.labels, args.out, _model(args), args.batch_size))


def _add_judgment_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    _add_files(parser, "with images if a model is asked")
    option(
        "--real",
        required=True,
        metavar="DIR",
        help="folder of the photographs (file stem = uid)",
    )
    _add_answers(
        parser, 'lines {"generator", "uid", "answer"}; photographs have the generator real'
    )
    option(
        "--form",
        choices=("general", "fakevlm", "fakereasoning"),
        default="general",
        help="how the model is asked, and its answer read (general)",
    )
    option("--question", metavar="TEXT", help="ask this instead")


def _judgment(args: argparse.Namespace) -> int:
    from artifactnet.vlm.xaigd.baselines import run_judgment

    model = _model(args, asking={"--question": args.question})
    results = run_judgment(
        args.labels, args.real, args.out, model, args.form, args.question, args.batch_size
    )
    return _print(results)


def _add_masks_options(parser: argparse.ArgumentParser) -> None:
    _add_files(parser)
    parser.add_argument(
        "--predictions",
        required=True,
        metavar="DIR",
        help="as of score-pixels --task category-agnostic; real/UID for photographs",
    )


def _masks(args: argparse.Namespace) -> int:
    from artifactnet.vlm.xaigd.baselines import run_masks

    return _print(run_masks(args.labels, args.predictions, args.out))


def _add_instances_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    _add_files(parser, "with images if a model is asked")
    _add_answers(parser, 'lines {"generator", "uid", "answer", "input_size"}')
    option(
        "--coordinates",
        choices=("image", "thousandths"),
        help="what the numbers of a file's answers mean that have no input_size",
    )
    option(
        "--threshold-inclusive",
        action="store_true",
        help="a share of exactly 0.5 of a box is enough, as in the paper's text",
    )


def _instances(args: argparse.Namespace) -> int:
    from artifactnet.vlm.xaigd.baselines import run_instances

    results = run_instances(
        args.labels,
        args.out,
        _model(args, reading={"--coordinates": args.coordinates}),
        unit=args.coordinates,
        inclusive=args.threshold_inclusive,
        batch_size=args.batch_size,
    )
    return _print(results)


def _print(results: dict[str, Any]) -> int:
    from artifactnet.vlm.xaigd.pages import page

    arguments.print_warnings(results["warnings"])
    for line in page(results).splitlines():
        if not line.startswith("WARNING: "):
            arguments.print_line(line)
    return 0


def _add_files(parser: argparse.ArgumentParser, images: str = "") -> None:
    option = parser.add_argument
    option(
        "--labels",
        required=True,
        nargs="+",
        metavar="FILE.parquet",
        help=f"annotated rows (labeled_test-*){images and f'; {images}'}",
    )
    option("--out", required=True, metavar="DIR", help="folder for answers and tables")


def _add_answers(parser: argparse.ArgumentParser, lines: str) -> None:
    """A model, or a file of its answers with such lines."""
    option = parser.add_argument
    option("--model", metavar="MODEL", help="name or folder of a checkpoint, or folder of a run")
    option("--answers", metavar="FILE.jsonl", help=f"instead of a model: {lines}")
    add_answerer(parser)


def _model(
    args: argparse.Namespace,
    asking: dict[str, str | None] | None = None,
    reading: dict[str, str | None] | None = None,
) -> Answerer | Path:
    """The model that was named, or the file of its answers.

    Args:
        args: parsed.
        asking: options that say how a model is asked.
        reading: options that say how a file is read.

    Raises:
        ArtifactNetError: both were named, or neither, or an option is of the other one.
    """
    from artifactnet.types import ArtifactNetError

    if args.answers is None:
        given = [name for name, value in (reading or {}).items() if value is not None]
        if given:
            raise ArtifactNetError(f"{given[0]} belongs to --answers: a model's are known")
        return open_answerer(args)
    given = answerer_options(args)
    given += [name for name, value in (asking or {}).items() if value is not None]
    if given:
        raise ArtifactNetError(f"{given[0]} belongs to a model that is asked, not to --answers")
    return Path(args.answers)
