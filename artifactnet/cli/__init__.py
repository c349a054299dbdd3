"""The ``artifactnet`` command. Each subcommand parses, calls one library function and prints.

Heavy packages are imported by the subcommand that needs them, so that ``--help`` is instant.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

from artifactnet import __version__
from artifactnet.cli import (
    annotate,
    arguments,
    benchmark,
    build_base,
    calibrate,
    completion,
    convert,
    demo,
    distill,
    doctor,
    experiment,
    explain,
    export,
    leaderboard,
    merge,
    models,
    pack,
    predict,
    push,
    qreal,
    qreal_bench,
    report,
    score,
    serve,
    synthesize,
    train,
    xaigd_bench,
)
from artifactnet.runs.memory import keep_freed_memory

INTERRUPTED = 130  # 128 + SIGINT, what shells expect
TERMINATED = 143  # 128 + SIGTERM
BROKEN_PIPE = 141  # 128 + SIGPIPE
# a full, read-only or forbidden disk
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}

Options = Callable[[argparse.ArgumentParser], None]
# subcommand -> its line in --help, its options, what runs it
COMMANDS: dict[str, tuple[str, Options | None, Callable[[argparse.Namespace], int]]] = {
    "train": ("train, evaluate and save", arguments.add_config, train.run_train),
    "distill": (
        "let a teacher label images, and train a student on them",
        distill.add_distill_options,
        distill.run_distill,
    ),
    "evaluate": ("evaluate a trained run", train.add_evaluate_options, train.run_evaluate),
    "calibrate": (
        "fit a detector's temperature and its limits for fake, uncertain and real",
        calibrate.add_calibrate_options,
        calibrate.run_calibrate,
    ),
    "predict": (
        "predict images and draw where the model looks",
        predict.add_predict_options,
        predict.run_predict,
    ),
    "serve": (
        "answer images over HTTP (extra serve)",
        serve.add_serve_options,
        serve.run_serve,
    ),
    "models": (
        "list the models that are here, or print a model's card",
        models.add_models_options,
        models.run_models,
    ),
    "demo": (
        "open a page for the browser: drop an image, see the verdict and the heatmap",
        demo.add_demo_options,
        demo.run_demo,
    ),
    "export": (
        "write a model as ONNX, OpenVINO or torch.export file, checked against it",
        export.add_export_options,
        export.run_export,
    ),
    "pack": (
        "write a model in half precision, checked against it",
        pack.add_pack_options,
        pack.run_pack,
    ),
    "push": (
        "upload a detector to the Hugging Face Hub, with a card of its figures",
        push.add_push_options,
        push.run_push,
    ),
    "build-base": (
        "write a base for vision-language models, of a ViT and a language model",
        build_base.add_build_base_options,
        build_base.run_build_base,
    ),
    "merge-adapters": (
        "write a fine-tuned vision-language model as one checkpoint, its adapters merged",
        merge.add_merge_options,
        merge.run_merge,
    ),
    "explain": (
        "draw where a model looks, by one or more methods",
        explain.add_explain_options,
        explain.run_explain,
    ),
    "judge": (
        "score explanations against annotated artifacts",
        explain.add_judge_options,
        explain.run_judge,
    ),
    "report": (
        "write an HTML page of verdicts and maps of many images",
        report.add_report_options,
        report.run_report,
    ),
    "leaderboard": (
        "write an HTML page of several models side by side, from their predictions",
        leaderboard.add_leaderboard_options,
        leaderboard.run_leaderboard,
    ),
    "score-pixels": (
        "score predicted masks as X-AIGD does",
        score.add_score_pixels_options,
        score.run_score_pixels,
    ),
    "score-instances": (
        "score predicted boxes as X-AIGD does",
        score.add_score_instances_options,
        score.run_score_instances,
    ),
    "score-answers": (
        "score saved answers of a FakeXplainer again, without a model",
        score.add_score_answers_options,
        score.run_score_answers,
    ),
    "score-preference": (
        "count which of two systems people prefer",
        score.add_score_preference_options,
        score.run_score_preference,
    ),
    "score-annotators": (
        "compare annotators with images of known answer",
        score.add_score_annotators_options,
        score.run_score_annotators,
    ),
    "score-qreal": (
        "score answers about the entities of Q-Real",
        qreal_bench.add_score_qreal_options,
        qreal_bench.run_score_qreal,
    ),
    "benchmark-qreal": (
        "ask a vision-language model what is wrong with entities, and score it",
        qreal_bench.add_benchmark_qreal_options,
        qreal_bench.run_benchmark_qreal,
    ),
    "benchmark-xaigd": (
        "ask a vision-language model about the artifacts of X-AIGD, and score it",
        xaigd_bench.add_benchmark_xaigd_options,
        xaigd_bench.run_benchmark_xaigd,
    ),
    "synthesize": (
        "make an annotated data set from your photographs",
        synthesize.add_synthesize_options,
        synthesize.run_synthesize,
    ),
    "convert": (
        "make a manifest of annotated images, to train on or mix",
        convert.add_convert_options,
        convert.run_convert,
    ),
    "annotate": (
        "let language models explain marked defects, in the form of Expl-AIGI-Eval",
        annotate.add_annotate_options,
        annotate.run_annotate,
    ),
    "qreal": (
        "annotate generated images as Q-Real does, with language models and people",
        qreal.add_qreal_options,
        qreal.run_qreal,
    ),
    "experiment": (
        "several trainings with several seeds in one table; resumes after an interruption",
        experiment.add_experiment_options,
        experiment.run_experiment,
    ),
    "config": ("print the resolved config", arguments.add_config, train.run_config),
    "doctor": (
        "say what is installed, what runs here and what to install; exit code 1 at a problem",
        None,
        doctor.run_doctor,
    ),
    "completion": (
        "print a script that completes commands, options and files in your shell",
        completion.add_completion_options,
        completion.run_completion,
    ),
    "version": ("print versions", None, train.run_version),
}

# commands whose steps need the same memory again and again
SAME_STEPS = (
    train.run_train,
    train.run_evaluate,
    distill.run_distill,
    calibrate.run_calibrate,
    experiment.run_experiment,
)

# their trainer decides what SIGTERM means: under Slurm, it may be queued again
HANDLE_SIGTERM = (train.run_train, distill.run_distill, experiment.run_experiment)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: arguments after the program's name; None takes them from ``sys.argv``.

    Returns:
        The exit code: 0 for success, 1 if no image could be used, 2 for a user error,
        130 after Ctrl-C, 143 after SIGTERM.

    Raises:
        SystemExit: the arguments do not parse (code 2), or help was asked for (code 0).
    """
    parser = _parser()
    completion.answer_shell(parser)
    return run(parser, argv)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse, run and turn errors into exit codes; see `main`.

    Args:
        parser: whose commands set ``run``, a function of the parsed arguments, and ``debug``.
        argv: arguments after the program's name; None takes them from ``sys.argv``.
    """
    _print_any_name()
    args, rest = parser.parse_known_args(argv)
    # to argparse, KEY=VALUE behind an option belongs to nothing, once there was none before it
    if rest and "overrides" in args and all(re.match(r"[^-].*=", text) for text in rest):
        args.overrides = [*args.overrides, *rest]
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if args.run in SAME_STEPS:
        keep_freed_memory()
    try:
        with _stopped_by_sigterm(args):
            return int(args.run(args))
    except KeyboardInterrupt as stop:
        reason = f"; {stop}" if str(stop) else ""
        arguments.print_line(f"{parser.prog}: interrupted{reason}", sys.stderr)
        return TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED
    except BrokenPipeError:
        # the reader left (`| head`); Python would complain once more while closing stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if not _is_user_error(error):
            raise
        if args.debug:
            traceback.print_exc()
        arguments.print_line(f"{parser.prog}: error: {error}", sys.stderr)
        return 2


def _print_any_name() -> None:
    """Let standard output and error spell out what their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not of a notebook
            stream.reconfigure(errors="backslashreplace")


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which stops the work as Ctrl-C does."""


@contextmanager
def _stopped_by_sigterm(args: argparse.Namespace) -> Iterator[None]:
    """Raise `_Terminated` where the signal would end the process at once, without any clean-up."""
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked worker
            os._exit(TERMINATED)
        raise _Terminated

    handled = (
        current_thread() is not main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        or args.run in HANDLE_SIGTERM
    )
    if handled:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _is_user_error(error: Exception) -> bool:
    """Whether the message is enough, without a traceback."""
    from artifactnet.types import ArtifactNetError

    return isinstance(error, ArtifactNetError) or (
        isinstance(error, OSError) and error.errno in DISK_ERRORS
    )


def common_options() -> argparse.ArgumentParser:
    """Parent parser with the options that every command takes."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return common


def _parser() -> argparse.ArgumentParser:
    common = common_options()
    parser = argparse.ArgumentParser(
        prog="artifactnet",
        description="Detect AI-generated images by looking at perceptual artifacts.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"artifactnet {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (summary, add_options, function) in COMMANDS.items():
        command = commands.add_parser(name, parents=[common], help=summary)
        if add_options is not None:
            add_options(command)
        command.set_defaults(run=function)
    # every argument belongs to the script that it calls
    old = commands.add_parser(
        "benchmark", parents=[common], help=benchmark.SUMMARY, add_help=False, prefix_chars="\0"
    )
    old.add_argument("arguments", nargs=argparse.REMAINDER)
    old.set_defaults(run=benchmark.run_benchmark)
    return parser
