"""OpenVINO files: written, quantised and run. The one importer of openvino and nncf."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from artifactnet.exporters.graph import INPUT, first_line
from artifactnet.inference.backends.metadata import KEYS, ExportFacts, facts_from_strings
from artifactnet.types import ArtifactNetError, Float32Array, UInt8Array

_PIP = "pip install 'openvino>=2024.4' (or 'artifactnet[openvino]')"
_PIP_INT8 = "pip install 'nncf>=2.13' (or 'artifactnet[openvino]')"
_SECTIONS = ("artifactnet", "framework")  # of runtime information: ours, that of an ONNX file

# NNCF would also round what costs next to nothing, sums, norms and means, and attention's products
_CHEAP = ["Add", "Subtract", "Multiply", "Divide", "MVN", "GroupNormalization", "Interpolate"]

_CHEAP += ["ReduceMean", "ReduceMax", "ReduceSum", "AvgPool", "Concat", "Softmax", "Power", "Sqrt"]

_NO_LAYER = r"^MatMul_\d+(/.*)?$"  # as `onnx_file` names products without weights

# a processor with bfloat16 units would use them, and say something else than the model
_PRECISION = "f32"


def _openvino() -> ModuleType:
    try:
        import openvino
    except ImportError as error:
        raise ArtifactNetError(f"OpenVINO files need the openvino package: {_PIP}") from error
    return openvino


def openvino_of(content: bytes) -> Any:
    """OpenVINO model of the content of an ``.onnx`` file; its layers keep their names.

    Raises:
        ArtifactNetError: openvino is missing, or lacks an operator of the model.
    """
    openvino = _openvino()
    try:
        return openvino.Core().read_model(content)
    except Exception as error:  # its exceptions have no public common base
        raise ArtifactNetError(f"the model has no OpenVINO form: {first_line(error)}") from error


def quantize_openvino(model: Any, batches: Sequence[UInt8Array], keep: Sequence[str]) -> Any:
    """Static int8 of the weighted layers by NNCF: symmetric weights, biases corrected.

    Args:
        model: of `openvino_of`.
        batches: calibration frames, (B, H, W, 3) uint8 each.
        keep: layers to leave in floating point.

    Raises:
        ArtifactNetError: nncf is missing or refuses the model.
    """
    try:
        import nncf
    except ImportError as error:
        raise ArtifactNetError(f"int8 for OpenVINO needs the nncf package: {_PIP_INT8}") from error
    # a layer with a bias becomes several nodes, named NAME/...; used again, NAME#2
    patterns = [rf"^{re.escape(layer)}(#\d+)?(/.*)?$" for layer in keep]
    scope = nncf.IgnoredScope(patterns=[*patterns, _NO_LAYER], types=_CHEAP, validate=False)
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):  # progress bars
            return nncf.quantize(
                model,
                nncf.Dataset(batches, lambda batch: {INPUT: batch}),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(batches),
                ignored_scope=scope,
            )
    except Exception as error:  # whatever it raises, the answer is about this model
        raise ArtifactNetError(f"the model cannot be quantised: {first_line(error)}") from error
    finally:
        logger.setLevel(level)


def save_openvino(model: Any, facts: ExportFacts, path: Path) -> None:
    """Write ``path`` (.xml) and the ``.bin`` beside it, weights in full precision.

    Raises:
        ArtifactNetError: the disk refused.
    """
    for key, value in facts.to_strings().items():
        model.set_rt_info(value, [_SECTIONS[0], key])
    try:
        _openvino().save_model(model, str(path), compress_to_fp16=False)
    except Exception as error:  # its exceptions have no public common base
        raise ArtifactNetError(f"{path}: cannot be written: {first_line(error)}") from error


class OpenvinoSession:
    """An exported ``.xml`` (or ``.onnx``) file in OpenVINO, on the CPU.

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
        openvino = _openvino()
        if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
            raise ArtifactNetError(
                f"{path}: its weights are missing; they belong beside it, in "
                f"{path.with_suffix('.bin').name}"
            )
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _PRECISION,
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        core = openvino.Core()
        try:
            model = core.read_model(str(path))
        except Exception as error:  # its exceptions have no public common base
            raise ArtifactNetError(
                f"{path}: OpenVINO cannot read this file: {first_line(error)}"
            ) from error
        self.facts = facts_from_strings(_strings(model), str(path))
        self.shape = tuple(d.get_length() for d in list(model.input(0).partial_shape)[1:3])
        try:
            self._compiled: Any = core.compile_model(model, "CPU", options)
        except Exception as error:
            raise ArtifactNetError(
                f"{path}: OpenVINO cannot compile this file: {first_line(error)}"
            ) from error
        self._request: Any = self._compiled.create_infer_request()

    def run(self, frames: UInt8Array) -> list[Float32Array]:
        """Outputs, in the order of the facts, of (B, H, W, 3) uint8 frames."""
        # the request's own memory is written to again by the next call
        found = self._request.infer({INPUT: frames}, share_outputs=False)
        return [found[self._compiled.output(name)] for name in self.facts.outputs]


def _strings(model: Any) -> dict[str, str]:
    """Metadata of an OpenVINO model: ours, or what it took over from an ONNX file."""
    section = next((s for s in _SECTIONS if model.has_rt_info([s, "format"])), None)
    if section is None:
        return {}
    known = [key for key in KEYS if model.has_rt_info([section, key])]
    return {key: str(model.get_rt_info([section, key]).value) for key in known}
