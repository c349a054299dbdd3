"""Export to ONNX, OpenVINO and torch.export, with a check against the model before a file appears.

`export_model` is what the command line does; `export_checked` takes decoded images.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from artifactnet.config import DataConfig
from artifactnet.data.sources.demo import build_demo_splits
from artifactnet.data.synthetic.edits import MIN_SIDE
from artifactnet.exporters.checks import (
    FLOAT_LIMITS,
    INT8_LIMITS,
    Agreement,
    OutputArrays,
    answers_of_file,
    answers_of_model,
    compare,
)
from artifactnet.exporters.graph import export_program, facts_of
from artifactnet.exporters.onnx import layers_of, onnx_bytes, quantize_onnx, with_metadata
from artifactnet.exporters.openvino import openvino_of, quantize_openvino, save_openvino
from artifactnet.exporters.quantize import kept_layers, need_matches
from artifactnet.files import atomic_path
from artifactnet.inference.backends import pt2
from artifactnet.inference.backends.exported import SUFFIXES, open_session, to_frames
from artifactnet.inference.backends.metadata import ExportFacts
from artifactnet.inference.backends.session import runtime_errors
from artifactnet.inference.collect import resolve_inputs, sample_evenly
from artifactnet.inference.inputs import Failure, to_pixels
from artifactnet.inference.load import find_weights
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import load_checkpoint
from artifactnet.types import ArtifactNetError, UInt8Array

LEAST_IMAGES = 2  # to check with: one would not distinguish a batch from an image
_CALIBRATION_BATCH = 4
_FEW = 16  # calibration images; ranges met on fewer do not represent others
_RANKING = 4  # images on which the harm that int8 does to each layer is measured
_LARGEST_DEMO = 512  # pixels; the packaged photographs are little larger


@dataclass(frozen=True, slots=True)
class Int8:
    """Calibration images ((H, W, 3) uint8), and patterns (see `matching`) of layers to keep."""

    images: Sequence[UInt8Array]
    keep: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that was checked and written.

    Attributes:
        path: the file; an ``.xml`` has its ``.bin`` beside it.
        facts: its metadata.
        agreement: how its answers compare with the model's.
        warnings: the model's notices, and too few calibration images.
        failures: images that could not be used.
    """

    path: Path
    facts: ExportFacts
    agreement: Agreement
    warnings: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()


def export_model(
    source: ArtifactNet | str | Path,
    path: str | Path,
    images: Sequence[str | Path] = (),
    *,
    check: int = 16,
    heatmap: bool = True,
    int8: bool = False,
    calibrate: int = 64,
    keep_float: Sequence[str] = (),
    overwrite: bool = False,
) -> Exported:
    """Export a model; the file appears only if it agrees with the model, see `export_checked`.

    Args:
        source: a detector on the CPU, or a run's folder, a ``.safetensors`` file or the name of a
            packaged model.
        path: ``.onnx``, ``.xml`` (OpenVINO) or ``.pt2`` (torch.export).
        images: to check and calibrate with: files, folders, shards and patterns, sampled evenly;
            none: the embedded photographs and edits of them.
        check: number of images to check with, >= 2.
        heatmap: False exports the verdict alone.
        int8: quantise to 8 bits (``.onnx`` and ``.xml``).
        calibrate: with ``int8``, number of further images to calibrate with. If there are too few
            for both, each gets its share.
        keep_float: with ``int8``, layers to keep in floating point, or patterns of them.
        overwrite: replace existing files.

    Raises:
        ArtifactNetError: no such model, ``keep_float`` without ``int8``, or see `export_checked`.
    """
    if keep_float and not int8:
        raise ArtifactNetError("keep_float names layers that int8 keeps in float; add int8")
    model = source if isinstance(source, ArtifactNet) else load_checkpoint(find_weights(source))
    frames, calibration, failures = _choose_images(model, images, check, calibrate if int8 else 0)
    warnings = list(model.notices)
    if 0 < len(calibration) < _FEW:
        warnings.append(
            f"int8 was calibrated on {len(calibration)} images, fewer than {_FEW}: others may not "
            "fit its ranges; give more images"
        )
    quantized = Int8(calibration, keep_float) if int8 else None
    try:
        done = export_checked(
            model, path, frames, heatmap=heatmap, int8=quantized, overwrite=overwrite
        )
    except ArtifactNetError as error:
        if not failures:
            raise
        raise ArtifactNetError(
            f"{error} ({len(failures)} images could not be used, e.g. {failures[0].path}: "
            f"{failures[0].reason})"
        ) from error
    return replace(done, warnings=tuple(warnings), failures=tuple(failures))


def _choose_images(
    model: ArtifactNet, inputs: Sequence[str | Path], check: int, calibrate: int
) -> tuple[list[UInt8Array], list[UInt8Array], list[Failure]]:
    """Images at model size to check with, others to calibrate with, and what failed."""
    if not inputs:
        side = min(max(*model.image_size, MIN_SIDE), _LARGEST_DEMO)
        counts = {"test": check, "train": calibrate}
        config = DataConfig(
            demo_size=side, demo_train=-(-calibrate // 2), demo_val=0, demo_test=-(-check // 2)
        )
        splits = build_demo_splits(config, seed=0)  # photographs of test are not those of train
        unseen, others = (
            [splits[split].load(k).image for k in range(count)] for split, count in counts.items()
        )
        return unseen, others, []
    resolved = resolve_inputs(inputs, skip="")
    failures = list(resolved.failures)
    frames: list[UInt8Array] = []
    for item in sample_evenly(resolved, check + calibrate):
        if isinstance(item, Failure):
            failures.append(item)
            continue
        try:
            # one original at a time: a photograph may be a hundred times its frame
            frames.append(frame_of(model, to_pixels(item.image, item.name)))
        except ArtifactNetError as error:
            failures.append(Failure(item.name, str(error).removeprefix(f"{item.name}: ")))
    share = round(len(frames) * check / (check + calibrate))
    step = len(frames) / share if share else 1
    chosen = [int(k * step) for k in range(share)]
    rest = [frame for k, frame in enumerate(frames) if k not in chosen]
    return [frames[k] for k in chosen], rest, failures


def export_checked(
    model: ArtifactNet,
    path: str | Path,
    images: Sequence[UInt8Array],
    *,
    heatmap: bool = True,
    int8: Int8 | None = None,
    overwrite: bool = False,
) -> Exported:
    """Export a model, checked on given images.

    The graph's input ``images`` is (B, H, W, 3) uint8 at model size, for any B; it normalises.
    In floating point every output must agree to 1e-3. In int8 the heatmaps must have a mean CC
    of 0.98 with the model's, and probability and score agree to 0.1; otherwise the layers that
    int8 harms most stay in floating point, up to half of them.

    Args:
        model: on the CPU.
        images: photographs to check with, at least `LEAST_IMAGES`, each (H, W, 3) uint8.
        int8: calibration, for an int8 file; None for floating point.
        path, heatmap, overwrite: see `export_model`.

    Raises:
        ArtifactNetError: the suffix, images or options cannot be used, the file exists, a
            package is missing, the model cannot be exported, or the file disagrees with it. No
            file is changed then.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ArtifactNetError(
            f"{path}: the suffix sets the format: .onnx, .xml (OpenVINO) or .pt2 (torch.export)"
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
                agreement = _compare(staged, frames, expected)
                problem = agreement.problem(FLOAT_LIMITS)
            else:
                facts, agreement = _quantize(model, program, facts, staged, int8, frames, expected)
                problem = agreement.problem(INT8_LIMITS)
            if problem is not None:
                raise ArtifactNetError(
                    f"{path}: not written, since it would disagree with the model: {problem}"
                )
            _publish(staged, path)
    except OSError as error:
        raise ArtifactNetError(f"{path}: cannot be written: {error}") from error
    return Exported(path, facts, agreement)


def _files(path: Path) -> list[Path]:
    """The files of an export, the main one last."""
    return [path.with_suffix(".bin"), path] if path.suffix == ".xml" else [path]


def frame_of(model: ArtifactNet, image: UInt8Array) -> UInt8Array:
    """An (H0, W0, 3) uint8 image at model size; the frame of a frame is the frame itself.

    Raises:
        ArtifactNetError: the image is smaller than one patch of the model.
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
        metadata = {pt2.METADATA: json.dumps(facts.to_strings())}
        with runtime_errors(f"{path}: cannot be written"):
            torch.export.save(program, path, extra_files=metadata)
        return
    content = onnx_bytes(program, facts.outputs, facts.to_strings())
    if path.suffix == ".onnx":
        path.write_bytes(content)
    else:
        save_openvino(openvino_of(with_metadata(content, {})), facts, path)


def _quantize(
    model: ArtifactNet,
    program: torch.export.ExportedProgram,
    facts: ExportFacts,
    path: Path,
    int8: Int8,
    frames: list[UInt8Array],
    expected: OutputArrays,
) -> tuple[ExportFacts, Agreement]:
    """Write an int8 file, with more layers in floating point until it agrees with the model."""
    calibration = _frames(model, int8.images)
    content = onnx_bytes(program, facts.outputs, {})
    layers = list(layers_of(content))
    need_matches(layers, int8.keep)
    starts = range(0, len(calibration), _CALIBRATION_BATCH)
    batches = [np.stack(calibration[start : start + _CALIBRATION_BATCH]) for start in starts]
    for kept in kept_layers(model, facts, layers, int8.keep, calibration[:_RANKING]):
        facts = replace(facts, kept_float=kept, calibrated=len(calibration))
        if path.suffix == ".onnx":
            quantized = quantize_onnx(content, path.parent, batches, kept)
            path.write_bytes(with_metadata(quantized, facts.to_strings()))
        else:
            save_openvino(quantize_openvino(openvino_of(content), batches, kept), facts, path)
        agreement = _compare(path, frames, expected)
        if agreement.problem(INT8_LIMITS) is None:
            break
    return facts, agreement


def _compare(path: Path, frames: list[UInt8Array], expected: OutputArrays) -> Agreement:
    session = open_session(path, SUFFIXES[path.suffix])
    try:
        return compare(expected, answers_of_file(session, frames))
    except ValueError as error:
        raise ArtifactNetError(f"{path.name}: not written, since {error}") from error


def _publish(staged: Path, path: Path) -> None:
    """Move checked files into place; a crash leaves no mixture of old and new."""
    if path.suffix == ".xml":
        path.unlink(missing_ok=True)  # else an old .xml might stand beside the new weights
    for source, target in zip(_files(staged), _files(path), strict=True):
        with atomic_path(target) as temporary:
            os.replace(source, temporary)
