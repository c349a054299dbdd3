"""``calibrate``: temperature and the limits of three verdicts, from validation images."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from artifactnet.cli import arguments

if TYPE_CHECKING:
    from artifactnet.evaluation.calibrate import Calibration


def add_calibrate_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``calibrate``."""
    option = parser.add_argument
    option(
        "model",
        metavar="MODEL",
        help="folder of a run; or a .safetensors file or a packaged model, with data.name=...",
    )
    arguments.add_overrides(parser, "data.*, seed, train.device; of a run its own by default")
    arguments.add_value(
        parser,
        "--false-alarms",
        float,
        0.03,
        "share of the validation photographs that may be called fake (0.03)",
        metavar="X",
    )
    arguments.add_value(
        parser,
        "--missed",
        float,
        0.1,
        "share of the validation fakes that may be called real (0.1)",
        metavar="X",
    )
    option("--out", metavar="FILE", help="the .safetensors file to write (MODEL's own)")


def run_calibrate(args: argparse.Namespace) -> int:
    """Run ``calibrate``; returns the exit code."""
    from artifactnet import calibrate

    found = calibrate(
        args.model, args.overrides, false_alarms=args.false_alarms, missed=args.missed,
        out=args.out,
    )  # fmt: skip
    arguments.print_warnings(found.warnings)
    for line in _lines(found):
        arguments.print_line(line)
    return 0


def _lines(found: Calibration) -> list[str]:
    lines = [
        f"validation images   {found.real} photographs, {found.fake} fakes",
        f"temperature         {found.temperature:.4g}",
        f"NLL                 {found.nll[0]:.4f} -> {found.nll[1]:.4f} (classes weigh the same)",
        f"ECE                 {found.ece[0]:.4f} -> {found.ece[1]:.4f}",
        f"fake from           {found.fake_from:g} (false alarms at most {found.false_alarms:.1%})",
        f"real below          {found.real_below:g} (missed fakes at most {found.missed:.1%})",
        f"threshold           {found.threshold:g} (is_fake)",
    ]
    for name, label in (("real", "photographs"), ("fake", "fakes")):
        shares = found.shares[name]
        verdicts = ", ".join(f"{shares[v]:.1%} {v}" for v in ("fake", "uncertain", "real"))
        lines.append(f"verdicts of {label:<12}{verdicts}")
    return [*lines, f"saved in {found.path}"]
