"""Writing OpenVINO files, in floating point and in int8 (by NNCF)."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from artifactnet.exporters.graph import quiet_logger
from artifactnet.inference.backends.metadata import INPUT, ExportFacts
from artifactnet.inference.backends.openvino import METADATA, import_openvino
from artifactnet.inference.backends.session import import_runtime, runtime_errors
from artifactnet.types import UInt8Array

_PIP = "pip install 'nncf>=2.13' (or 'artifactnet[openvino]')"

# NNCF would also round what costs next to nothing: sums, norms and means, and attention's products
_CHEAP = [
    *("Add", "Subtract", "Multiply", "Divide", "MVN", "GroupNormalization", "Interpolate"),
    *("ReduceMean", "ReduceMax", "ReduceSum", "AvgPool", "Concat", "Softmax", "Power", "Sqrt"),
]
_UNWEIGHTED = r"^MatMul_\d+(/.*)?$"  # what `exporters.onnx` names products without weights


def openvino_of(content: bytes) -> Any:
    """OpenVINO model of the content of an ``.onnx`` file; its layers keep their names.

    Raises:
        ArtifactNetError: openvino is missing, or lacks an operator of the model.
    """
    core = import_openvino().Core()
    with runtime_errors("the model has no OpenVINO form"):
        return core.read_model(content)


def quantize_openvino(model: Any, batches: Sequence[UInt8Array], keep: Sequence[str]) -> Any:
    """Static int8 of the weighted layers by NNCF: symmetric weights, biases corrected.

    Args:
        model: of `openvino_of`.
        batches: calibration images at model size, (B, H, W, 3) uint8 each.
        keep: layers to keep in floating point.

    Raises:
        ArtifactNetError: nncf is missing or refuses the model.
    """
    nncf = import_runtime("nncf", "int8 for OpenVINO needs the nncf package", _PIP)
    # a layer with a bias becomes several nodes, named NAME/...; used again, NAME#2
    patterns = [rf"^{re.escape(layer)}(#\d+)?(/.*)?$" for layer in keep]
    scope = nncf.IgnoredScope(patterns=[*patterns, _UNWEIGHTED], types=_CHEAP, validate=False)
    with (
        runtime_errors("the model cannot be quantised"),
        quiet_logger("nncf"),
        redirect_stdout(io.StringIO()),  # progress bars
    ):
        return nncf.quantize(
            model,
            nncf.Dataset(batches, lambda batch: {INPUT: batch}),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
            ignored_scope=scope,
        )


def save_openvino(model: Any, facts: ExportFacts, path: Path) -> None:
    """Write ``path`` (.xml) and the ``.bin`` beside it, weights in full precision.

    Raises:
        ArtifactNetError: the files cannot be written.
    """
    for key, value in facts.to_strings().items():
        model.set_rt_info(value, [METADATA, key])
    with runtime_errors(f"{path}: cannot be written"):
        import_openvino().save_model(model, str(path), compress_to_fp16=False)
