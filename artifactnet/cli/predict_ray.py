"""``predict --engine ray``: a job on the actors of a Ray cluster."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from artifactnet.cli import arguments, progress

if TYPE_CHECKING:
    from artifactnet.cluster.plan import Summary
    from artifactnet.cluster.worker import UnitResult

_EVERY = 10.0  # seconds between two lines that say how far it is
# options of the local engine alone -> why
_LOCAL = {
    "json": "its answers are parquet files",
    "save_masks": "its masks would be as many files as there are images",
    "allow_urls": "it reads object stores (s3://, gs://, ...), not the web",
    **dict.fromkeys(
        (
            *("vlm_url", "vlm_model", "vlm_family"),
            *("vlm_key_env", "vlm_layout", "vlm_max_tokens", "vlm_max_pixels"),
        ),
        "its actors hold a model each, and ask no endpoint",
    ),
}
_OWN = ("actors", "gpus_per_actor", "cpus_per_actor", "ray_address", "part_images")


def add_ray_options(parser: argparse.ArgumentParser) -> None:
    """Options of the engines of ``predict``."""
    option = parser.add_argument
    option(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="where images are predicted: in this process, or on the actors of a Ray cluster, "
        "which also reads tars, manifests (.jsonl) and object stores (s3://, gs://, hdfs://), and "
        "writes parquet files (see docs/scale.md)",
    )
    option(
        "--actors",
        type=_actors,
        metavar="N|MIN..MAX",
        help="with --engine ray: how many actors hold a model; between MIN and MAX as many as "
        "there is work for (default: up to what the cluster holds)",
    )
    option(
        "--gpus-per-actor",
        type=_gpus,
        metavar="X",
        help="with --engine ray: 0.5 lets two actors share a GPU (default: 1 where there are "
        "GPUs and --device is not cpu)",
    )
    arguments.add_value(
        parser,
        "--cpus-per-actor",
        arguments.positive,
        None,
        "with --engine ray: processor cores, and threads of the model unless --threads says "
        "otherwise (default: as many as --workers, at least 1)",
    )
    option(
        "--ray-address",
        metavar="ADDRESS",
        help="with --engine ray: a running cluster (default: RAY_ADDRESS; without it a cluster is "
        "started on this machine)",
    )
    arguments.add_value(
        parser,
        "--part-images",
        arguments.positive,
        None,
        "with --engine ray: about how many images make a unit of work, and so an output file "
        "(default: 1000)",
    )


def check_engine(args: argparse.Namespace) -> None:
    """Refuse options that the engine does not have.

    Raises:
        ArtifactNetError: names the option.
    """
    from artifactnet.types import ArtifactNetError

    if args.engine == "local":
        for name in _OWN:
            if getattr(args, name) is not None:
                raise ArtifactNetError(f"--{name.replace('_', '-')} needs --engine ray")
        return
    for name, reason in _LOCAL.items():
        if getattr(args, name):
            raise ArtifactNetError(
                f"--engine ray has no --{name.replace('_', '-')}: {reason}; leave it out"
            )
    if args.out is None:
        raise ArtifactNetError("--engine ray needs --out, a folder or a URL")
    if args.device not in ("auto", "cpu", "cuda"):
        raise ArtifactNetError(
            f"--device {args.device}: with --engine ray it is auto, cpu or cuda; Ray hands out the "
            "GPUs (--gpus-per-actor)"
        )


def run_on_ray(args: argparse.Namespace, overlap: float) -> int:
    """Run ``predict --engine ray``; returns the exit code.

    Args:
        args: of ``predict``, checked.
        overlap: of tiles.
    """
    from artifactnet.cluster.engine import Resources, need_ray, predict_on_ray
    from artifactnet.cluster.job import TOGETHER, ModelChoice, make_job

    need_ray()
    cpus = args.cpus_per_actor or max(1, args.workers)
    model = ModelChoice(
        arguments.choose_model(args.model), args.device, args.backend, args.threads or cpus,
        args.text,
    )  # fmt: skip
    # here for its warnings, checks and fingerprint alone
    predictor = model.load("cpu")
    arguments.print_warnings(predictor.warnings)
    options = predictor.options(
        args.batch_size, args.workers, not args.no_heatmaps, args.tiles, overlap, args.min_area,
        args.levels, args.stability,
    )  # fmt: skip
    job = make_job(args.images, args.out, model, predictor, options, args.part_images or TOGETHER)
    limits = predictor.limits
    del predictor
    resources = Resources(args.actors, args.gpus_per_actor, cpus, args.ray_address)
    with _Progress() as shown:
        summary = predict_on_ray(job, resources, args.resume, shown.expect, shown.add)
    _print_summary(summary, args, limits is not None)
    answered = summary.counts.rows - summary.counts.errors
    return 0 if answered and not summary.lost else 1


def _print_summary(summary: Summary, args: argparse.Namespace, calibrated: bool) -> None:
    counts = summary.counts
    arguments.print_warnings(summary.warnings)
    answered = counts.rows - counts.errors
    earlier = f" ({summary.resumed} of them earlier)" if args.resume else ""
    uncertain = f", {counts.uncertain} uncertain" if calibrated else ""
    real = answered - counts.fakes - counts.uncertain
    arguments.print_line(
        f"{answered} of {counts.rows} images predicted{earlier}, {counts.fakes} called fake"
        f"{uncertain}, {real} called real; answers in {summary.parts} parquet files in "
        f"{summary.out}/predictions"
    )
    if args.stability:
        print(f"the verdict flips between re-encodings of {counts.unstable} images")
    arguments.print_skipped(summary.skipped)
    if summary.others:
        print(f"{summary.others} files more are no images and left out", file=sys.stderr)
    _print_failures(summary)


def _print_failures(summary: Summary) -> None:
    errors = summary.counts.errors
    if errors:
        end = ":" if summary.failures else ""
        print(f"{errors} could not be used; their column 'error' says why{end}", file=sys.stderr)
    for failure in summary.failures:
        arguments.print_line(f"  {failure.path}: {failure.reason}", sys.stderr)
    if summary.failures and errors > len(summary.failures):
        print(f"  and {errors - len(summary.failures)} more", file=sys.stderr)
    if summary.counts.unread:
        print(
            f"{summary.counts.unread} of them could not be read; --resume tries them again",
            file=sys.stderr,
        )
    if summary.lost:
        print(
            f"{len(summary.lost)} units have no answers: the processes that worked on them died "
            "again and again (too little memory?); --resume tries them again:",
            file=sys.stderr,
        )
    for source in summary.lost[:10]:
        arguments.print_line(f"  {source}", sys.stderr)


class _Progress:
    """A bar of the units on a terminal, and elsewhere a line now and then."""

    def __init__(self) -> None:
        self._bar = progress.Watched(table=False, what="units") if sys.stderr.isatty() else None
        self._units = self._done = self._images = 0
        self._start = self._told = time.monotonic()

    def __enter__(self) -> _Progress:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def expect(self, units: int, images: int) -> None:
        """What is to be done."""
        self._units = units
        if self._bar is not None:
            self._bar.expect(units)

    def add(self, result: UnitResult) -> None:
        """A unit is done."""
        self._done += 1
        self._images += result.counts.rows
        if self._bar is not None:
            self._bar.advance()
            return
        now = time.monotonic()
        if now - self._told >= _EVERY:
            self._told = now
            speed = self._images / (now - self._start)
            print(
                f"{self._done} of {self._units} units, {self._images} images, "
                f"{speed:.1f} images/s",
                file=sys.stderr, flush=True,
            )  # fmt: skip


def _actors(text: str) -> tuple[int, int]:
    """``N`` or ``MIN..MAX``."""
    least, dots, most = text.partition("..")
    numbers = arguments.positive(least), arguments.positive(most if dots else least)
    if numbers[0] > numbers[1]:
        raise argparse.ArgumentTypeError(f"{text}: the least is above the most")
    return numbers


def _gpus(text: str) -> float:
    """GPUs of an actor: 0, a share of one, or a whole number."""
    value = float(text)
    if not value >= 0 or (value > 1 and not value.is_integer()):
        raise argparse.ArgumentTypeError(f"{text} is neither a share of a GPU nor a whole number")
    return value
