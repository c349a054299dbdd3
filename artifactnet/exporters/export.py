"""A model as a file that runs without us (ONNX, OpenVINO, torch.export), checked beforehand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from artifactnet.exporters.checks import (
    FLOAT_LIMITS,
    INT8_LIMITS,
    Agreement,
    OutputArrays,
    answers_of_file,
    answers_of_model,
    compare,
)
from artifactnet.exporters.graph import export_program
from artifactnet.exporters.onnx import layers_of, onnx_bytes, save_bytes, with_metadata
from artifactnet.exporters.quantize import kept_layers, need_matches
from artifactnet.files import atomic_path
from artifactnet.inference.backends.base import SUFFIXES, open_session, to_frames
from artifactnet.inference.backends.metadata import ExportFacts, facts_of
from artifactnet.inference.backends.onnx import quantize_onnx
from artifactnet.inference.backends.openvino import openvino_of, quantize_openvino, save_openvino
from artifactnet.inference.backends.pt2 import save_program
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError, UInt8Array

LEAST_IMAGES = 2  # to check with: one would not tell a batch from an image
_CALIBRATION_BATCH = 4
_RANKING = 4  # images on which the harm that int8 does to each layer is measured


@dataclass(frozen=True, slots=True)
class Int8:
    """How to quantise.

    Attributes:
        images: to calibrate with, each (H, W, 3) uint8; like those that will be judged.
        keep: patterns of layers to leave in floating point, see `quantize.matching`.
    """

    images: Sequence[UInt8Array]
    keep: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that was checked and written.

    Attributes:
        path: the file; an ``.xml`` has its ``.bin`` beside it.
        facts: its metadata.
        agreement: how its answers compare with the model's.
    """

    path: Path
    facts: ExportFacts
    agreement: Agreement


def export_model(
    model: ArtifactNet,
    path: str | Path,
    images: Sequence[UInt8Array],
    *,
    heatmap: bool = True,
    int8: Int8 | None = None,
    overwrite: bool = False,
) -> Exported:
    """Export a model; the file appears only if it says what the model says.

    Its input ``images`` is (B, H, W, 3) uint8 at model size, for any B; normalisation is inside.
    In floating point every output must agree to 1e-3. In int8 the heatmaps must have a mean CC
    of 0.98 with the model's, and probability and score agree to 0.1; where they do not, layers
    that int8 harms most are left in floating point, up to half of them.

    Args:
        model: on the CPU.
        path: ``.onnx``, ``.xml`` (OpenVINO) or ``.pt2`` (torch.export).
        images: photographs to check with, at least `LEAST_IMAGES`, each (H, W, 3) uint8.
        heatmap: False exports the verdict alone.
        int8: calibration, for an int8 file; None for floating point.
        overwrite: replace existing files.

    Raises:
        ArtifactNetError: the suffix, images or options cannot be used, the file exists, a
            package is missing, the model has no such form, or the file disagrees with it. No
            file is touched then.
    """
    path = Path(path)
    _check(path, images, int8, overwrite)
    facts = facts_of(model, heatmap)
    frames = _frames(model, images)
    expected = answers_of_model(model, facts, frames)
    program = export_program(model, facts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            staged = Path(folder) / path.name
            if int8 is None:
                _write(program, facts, staged)
                agreement = _judge(staged, frames, expected)
                problem = agreement.problem(FLOAT_LIMITS)
            else:
                calibration = _frames(model, int8.images)
                facts, agreement = _quantize(
                    model, program, facts, staged, int8.keep, calibration, frames, expected
                )
                problem = agreement.problem(INT8_LIMITS)
            if problem is not None:
                raise ArtifactNetError(
                    f"{path}: not written, since it would disagree with the model: {problem}"
                )
            _publish(staged, path)
    except OSError as error:
        raise ArtifactNetError(f"{path}: cannot be written: {error}") from error
    return Exported(path, facts, agreement)


def _check(path: Path, images: Sequence[UInt8Array], int8: Int8 | None, overwrite: bool) -> None:
    if path.suffix not in SUFFIXES:
        raise ArtifactNetError(
            f"{path}: the name tells the format and must end in .onnx, .xml (OpenVINO) or .pt2 "
            "(torch.export)"
        )
    if int8 is not None and path.suffix == ".pt2":
        raise ArtifactNetError(f"{path}: int8 is for .onnx and .xml (OpenVINO) files")
    if len(images) < LEAST_IMAGES or (int8 is not None and not int8.images):
        raise ArtifactNetError(
            f"{path}: an export is checked on at least {LEAST_IMAGES} images, and int8 is "
            "calibrated on others; give more images"
        )
    for file in _files(path):
        if file.exists() and not overwrite:
            raise ArtifactNetError(f"{file}: exists already; overwrite replaces it")


def _files(path: Path) -> list[Path]:
    """What makes up an export, the file that names the others last."""
    return [path.with_suffix(".bin"), path] if path.suffix == ".xml" else [path]


def frame_of(model: ArtifactNet, image: UInt8Array) -> UInt8Array:
    """An image as an export of the model gets it.

    A frame is its own frame, so whoever has many large images for `export_model` need keep no
    more of them.

    Args:
        model: says the size and the way to it.
        image: (H0, W0, 3) uint8.

    Returns:
        (H, W, 3) uint8 at model size.

    Raises:
        ArtifactNetError: the image is below one patch of the model.
    """
    tensor = preprocess_of(model).image(image)[0]
    return to_frames(tensor[None], model.mean, model.std)[0]


def _frames(model: ArtifactNet, images: Sequence[UInt8Array]) -> list[UInt8Array]:
    frames = []
    for number, image in enumerate(images):
        try:
            frames.append(frame_of(model, image))
        except ArtifactNetError as error:
            raise ArtifactNetError(f"image {number} of {len(images)}: {error}") from error
    return frames


def _write(program: torch.export.ExportedProgram, facts: ExportFacts, path: Path) -> None:
    """Write a file in floating point."""
    if path.suffix == ".pt2":
        save_program(program, facts, path)
        return
    content = onnx_bytes(program, facts.outputs, facts.to_strings())
    if path.suffix == ".onnx":
        save_bytes(content, path)
    else:
        save_openvino(openvino_of(with_metadata(content, {})), facts, path)


def _quantize(
    model: ArtifactNet,
    program: torch.export.ExportedProgram,
    facts: ExportFacts,
    path: Path,
    keep: Sequence[str],
    calibration: list[UInt8Array],
    frames: list[UInt8Array],
    expected: OutputArrays,
) -> tuple[ExportFacts, Agreement]:
    """Write an int8 file, with more layers in floating point until it agrees with the model."""
    content = onnx_bytes(program, facts.outputs, {})
    layers = list(layers_of(content))
    need_matches(layers, keep)
    size = _CALIBRATION_BATCH
    batches = [
        np.stack(calibration[start : start + size]) for start in range(0, len(calibration), size)
    ]
    for kept in kept_layers(model, facts, layers, keep, calibration[:_RANKING]):
        facts = replace(facts, kept_float=kept, calibrated=len(calibration))
        if path.suffix == ".onnx":
            quantized = quantize_onnx(content, path.parent, batches, kept)
            save_bytes(with_metadata(quantized, facts.to_strings()), path)
        else:
            save_openvino(quantize_openvino(openvino_of(content), batches, kept), facts, path)
        agreement = _judge(path, frames, expected)
        if agreement.problem(INT8_LIMITS) is None:
            break
    return facts, agreement


def _judge(path: Path, frames: list[UInt8Array], expected: OutputArrays) -> Agreement:
    session = open_session(path, SUFFIXES[path.suffix])
    try:
        return compare(expected, answers_of_file(session, frames))
    except ValueError as error:
        raise ArtifactNetError(f"{path.name}: not written, since {error}") from error


def _publish(staged: Path, path: Path) -> None:
    """Put checked files where they belong; a crash leaves no mixture of old and new."""
    if path.suffix == ".xml":
        path.unlink(missing_ok=True)  # else an old .xml might stand beside the new weights
    for source, target in zip(_files(staged), _files(path), strict=True):
        with atomic_path(target) as temporary:
            os.replace(source, temporary)
