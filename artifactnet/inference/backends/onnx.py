"""Running and quantising ONNX files. The one importer of onnxruntime."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from artifactnet.exporters.graph import INPUT, first_line
from artifactnet.exporters.onnx import layers_of, save_bytes, with_shapes
from artifactnet.inference.backends.metadata import facts_from_strings
from artifactnet.types import ArtifactNetError, Float32Array, UInt8Array

_PIP = "pip install 'onnxruntime>=1.18' (or 'artifactnet[onnx]')"


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise ArtifactNetError(f"ONNX files are run by onnxruntime: {_PIP}") from error
    return onnxruntime


class OnnxSession:
    """An exported ``.onnx`` file in ONNX Runtime, on the CPU.

    Args:
        path: the file.
        threads: that one call uses; 0 leaves it to the runtime.

    Attributes:
        facts: what the file says of itself.
        shape: height and width of its input, pixels.

    Raises:
        ArtifactNetError: the file cannot be read, or was not exported by ArtifactNet.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors; warnings are about its own optimisations
        try:
            self._session: Any = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no public common base
            raise ArtifactNetError(
                f"{path}: ONNX Runtime {runtime.__version__} cannot read this file: "
                f"{first_line(error)}"
            ) from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.facts = facts_from_strings(metadata, str(path))
        shape = self._session.get_inputs()[0].shape
        self.shape: tuple[int, ...] = tuple(shape[1:3])

    def run(self, frames: UInt8Array) -> list[Float32Array]:
        """Outputs, in the order of the facts, of (B, H, W, 3) uint8 frames."""
        outputs: list[Float32Array] = self._session.run(list(self.facts.outputs), {INPUT: frames})
        return outputs


class _Reader:
    """Hands calibration batches to the quantiser, in the form that it asks for."""

    def __init__(self, batches: Sequence[UInt8Array]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, UInt8Array] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def quantize_onnx(
    content: bytes, folder: Path, batches: Sequence[UInt8Array], keep: Sequence[str]
) -> bytes:
    """Static int8 of the weighted layers, in the QDQ form that every runtime reads.

    Weights have a scale per channel, activations one per tensor, from the smallest and largest
    value that calibration met. Weights use seven bits: on processors without VNNI the sum of two
    products of eight bits saturates, and the file shall mean the same everywhere.

    Args:
        content: of an ``.onnx`` file in floating point.
        folder: for intermediate files.
        batches: calibration frames, (B, H, W, 3) uint8 each.
        keep: layers to leave in floating point.

    Raises:
        ArtifactNetError: onnxruntime is missing, or its quantiser refuses the model.
    """
    _onnxruntime()
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
        shape_inference,
    )

    class Reader(_Reader, CalibrationDataReader):
        """The quantiser checks the type."""

    layers = layers_of(content)
    nodes = [name for layer, names in layers.items() if layer not in keep for name in names]
    source, ready, target = (folder / name for name in ("float.onnx", "ready.onnx", "int8.onnx"))
    save_bytes(with_shapes(content), source)
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it advises on the root logger
    try:
        shape_inference.quant_pre_process(
            source, ready, skip_optimization=True, skip_symbolic_shape=True
        )
        quantize_static(
            ready,
            target,
            Reader(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=nodes,
        )
    except Exception as error:  # whatever it raises, the answer is about this model
        raise ArtifactNetError(f"the model cannot be quantised: {first_line(error)}") from error
    finally:
        logging.root.setLevel(level)
    return target.read_bytes()
