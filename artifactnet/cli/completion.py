"""``completion``: a shell completes commands, options and files, by asking the parser."""

from __future__ import annotations

import argparse
import os
from types import ModuleType

SHELLS = ("bash", "zsh", "fish")


def add_completion_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``completion``."""
    parser.add_argument("shell", choices=SHELLS, help="which shell reads the script")


def run_completion(args: argparse.Namespace) -> int:
    """Run ``completion``; returns the exit code."""
    print(_argcomplete().shellcode(["artifactnet"], shell=args.shell))
    return 0


def answer_shell(parser: argparse.ArgumentParser) -> None:
    """If the shell asks how a line may go on, say so and end the process."""
    if "_ARGCOMPLETE" in os.environ:  # set by the script
        _argcomplete().autocomplete(parser)


def _argcomplete() -> ModuleType:
    try:
        import argcomplete
    except ImportError as error:
        from artifactnet.types import ArtifactNetError

        raise ArtifactNetError(
            "completion needs the package argcomplete: pip install 'artifactnet[completion]'"
        ) from error
    return argcomplete
