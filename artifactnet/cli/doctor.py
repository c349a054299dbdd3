"""``doctor``: what is installed, what runs here, and what to install for the rest."""

from __future__ import annotations

import argparse
import os
import platform
from typing import TYPE_CHECKING

from artifactnet import __version__
from artifactnet.cli.arguments import print_line

if TYPE_CHECKING:
    from artifactnet.runs.opencv import OpenCV
    from artifactnet.runs.requirements import Requirements


def run_doctor(args: argparse.Namespace) -> int:
    """Run ``doctor``; returns 0 if all that ArtifactNet needs is there and works, else 1."""
    from artifactnet.runs.opencv import find_opencv
    from artifactnet.runs.requirements import find_requirements

    requirements, opencv = find_requirements(), find_opencv()
    print(f"artifactnet {__version__}, Python {platform.python_version()}, {platform.platform()}")
    _print_packages(requirements)
    _print_opencv(opencv)
    devices = _print_devices()
    _print_extras(requirements)
    problems = len(requirements.missing) + (opencv.problem is not None) + (not devices)
    if not problems:
        print("all that ArtifactNet needs is there")
        return 0
    print("1 problem" if problems == 1 else f"{problems} problems")
    return 1


def _print_packages(requirements: Requirements) -> None:
    print("\nPackages")
    for name, version in requirements.installed.items():
        print_line(f"  {name} {version}")
    for name in requirements.missing:
        print_line(f"  PROBLEM: {name} is missing; pip install --upgrade artifactnet brings it")


def _print_opencv(opencv: OpenCV) -> None:
    from artifactnet.runs.opencv import REMEDY

    print("\nOpenCV")
    for name, version in opencv.installed.items():
        print_line(f"  {name} {version}{' is what import cv2 loads' * (name == opencv.wins)}")
    if opencv.problem is not None:
        print_line(f"  PROBLEM: {opencv.problem}; {REMEDY}")
    elif opencv.caveat is not None:
        print_line(f"  works here; {opencv.caveat}; {REMEDY} takes the build that needs none")


def _print_devices() -> bool:
    """The devices; False if PyTorch cannot be used."""
    print("\nDevices")
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library that it needs
        print_line(f"  PROBLEM: import torch fails ({error})")
        return False
    print(f"  cpu: {os.cpu_count()} logical cores, {torch.get_num_threads()} threads of PyTorch")
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        memory = facts.total_memory / 2**30
        print_line(f"  cuda:{number}: {facts.name}, {memory:.0f} GiB, CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        print("  mps: Apple GPU")
    elif not torch.cuda.is_available():
        built = torch.version.cuda
        reason = f"this PyTorch is made for CUDA {built}" if built else "this PyTorch has no CUDA"
        print(f"  no GPU that PyTorch can use ({reason})")
    return True


def _print_extras(requirements: Requirements) -> None:
    print("\nExtras")
    for extra, missing in requirements.extras.items():
        if not missing:
            print_line(f"  {extra}: installed")
        else:
            lacks = ", ".join(missing)
            print_line(f"  {extra}: pip install 'artifactnet[{extra}]' (missing: {lacks})")
    print()
