"""The ``artifactnet`` command. Each subcommand parses, calls one library function and prints.

Heavy packages are imported by the subcommand that needs them, so that ``--help`` is instant.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence

from artifactnet.cli.annotate import add_annotate
from artifactnet.cli.benchmark import add_benchmark
from artifactnet.cli.convert import add_convert
from artifactnet.cli.distill import add_distill
from artifactnet.cli.experiment import add_experiment
from artifactnet.cli.explain import add_explain, add_judge
from artifactnet.cli.export import add_export
from artifactnet.cli.pack import add_pack
from artifactnet.cli.predict import add_predict
from artifactnet.cli.report import add_report
from artifactnet.cli.score import add_score_instances, add_score_pixels
from artifactnet.cli.synthesize import add_synthesize
from artifactnet.cli.train import add_config, add_evaluate, add_train, add_version

INTERRUPTED = 130  # 128 + SIGINT, what shells expect
BROKEN_PIPE = 141  # 128 + SIGPIPE
# a full, read-only or forbidden disk
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: arguments after the program's name; None takes them from ``sys.argv``.

    Returns:
        The exit code: 0 for success, 1 if no image could be used, 2 for a user error,
        130 after Ctrl-C.

    Raises:
        SystemExit: the arguments do not parse (code 2), or help was asked for (code 0).
    """
    return run(_parser(), argv)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse, run and turn errors into exit codes; see `main`.

    Args:
        parser: whose commands set ``run``, a function of the parsed arguments, and ``debug``.
        argv: arguments after the program's name; None takes them from ``sys.argv``.
    """
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # the reader left (`| head`); Python would complain once more while closing stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if not _is_user_error(error):
            raise
        if args.debug:
            traceback.print_exc()
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2


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
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        add_train,
        add_distill,
        add_evaluate,
        add_predict,
        add_export,
        add_pack,
        add_explain,
        add_judge,
        add_report,
        add_score_pixels,
        add_score_instances,
        add_synthesize,
        add_convert,
        add_annotate,
        add_benchmark,
        add_experiment,
        add_config,
        add_version,
    ):
        add(commands, common)
    return parser
