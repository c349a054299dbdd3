"""What the benchmarks' subcommands share: options, and reports written and printed."""

from __future__ import annotations

import argparse
from typing import Any

from artifactnet.cli.arguments import positive


def add_report_options(parser: argparse.ArgumentParser, repeats: int = 5) -> None:
    """``--repeats`` and ``--out``.

    Args:
        parser: of a benchmark.
        repeats: the default.
    """
    parser.add_argument(
        "--repeats", type=positive, default=repeats, metavar="N", help=f"of each form ({repeats})"
    )
    parser.add_argument("--out", metavar="JSON", help="file for the report")


def check_out(*outs: str | None) -> None:
    """Refuse places for files that cannot be written, before the long work.

    Raises:
        ArtifactNetError: a path is a folder or lies below a file.
    """
    from artifactnet.engine.score_tables import check_outputs

    for out in outs:
        if out:
            check_outputs(out)


def write(out: str | None, report: dict[str, Any]) -> None:
    """Write a report where that was asked for.

    Raises:
        OSError: the file cannot be written.
    """
    from artifactnet.files import write_json

    if out:
        write_json(out, report)


def print_forms(forms: dict[str, Any], indent: str = "") -> None:
    """Print seconds and ratios of forms.

    Args:
        forms: name -> `artifactnet.engine.benchmark.summary`.
        indent: before every line.
    """
    for form, result in forms.items():
        print(f"{indent}{form}")
        for key, unit in (("seconds", "s"), ("times_faster", "x"), ("times_less_cpu", "x")):
            spread = result[key]
            print(
                f"{indent}  {key.replace('_', ' '):<15} {spread['median']:8.3f} {unit} "
                f"({spread['min']:.3f} to {spread['max']:.3f})"
            )
