"""OpenVINO: runs exported ``.xml`` files, and ``.onnx`` files, too."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from artifactnet.inference.backends.metadata import INPUT, KEYS, facts_from_strings
from artifactnet.inference.backends.session import Session, import_runtime, runtime_errors
from artifactnet.types import ArtifactNetError, Float32Array, UInt8Array

METADATA = "artifactnet"  # section of a model's runtime information
_SECTIONS = (METADATA, "framework")  # ours, or that of an ONNX file

# a processor with bfloat16 units would use them, and the answers would not be the model's
_PRECISION = "f32"


def import_openvino() -> ModuleType:
    """The package; ArtifactNetError if it is not installed."""
    pip = "pip install 'openvino>=2024.4' (or 'artifactnet[openvino]')"
    return import_runtime("openvino", "OpenVINO files need the openvino package", pip)


class OpenvinoSession(Session):
    """An exported ``.xml`` (or ``.onnx``) file in OpenVINO."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        openvino = import_openvino()
        weights = path.with_suffix(".bin")
        if path.suffix == ".xml" and not weights.is_file():
            raise ArtifactNetError(
                f"{path}: its weights are missing; they belong beside it, in {weights.name}"
            )
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _PRECISION,
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        core = openvino.Core()
        with runtime_errors(f"{path}: OpenVINO cannot read this file"):
            model = core.read_model(str(path))
        self.facts = facts_from_strings(_read_metadata(model), str(path))
        self.shape = tuple(d.get_length() for d in list(model.input(0).partial_shape)[1:3])
        with runtime_errors(f"{path}: OpenVINO cannot compile this file"):
            self._compiled: Any = core.compile_model(model, "CPU", options)
        self._request: Any = self._compiled.create_infer_request()

    def run(self, frames: UInt8Array) -> list[Float32Array]:
        """See `Session.run`."""
        # the request's own memory is written to again by the next call
        outputs = self._request.infer({INPUT: frames}, share_outputs=False)
        return [outputs[self._compiled.output(name)] for name in self.facts.outputs]


def _read_metadata(model: Any) -> dict[str, str]:
    """Metadata of an OpenVINO model: ours, or what it took over from an ONNX file."""
    section = next((s for s in _SECTIONS if model.has_rt_info([s, "format"])), None)
    if section is None:
        return {}
    keys = [key for key in KEYS if model.has_rt_info([section, key])]
    return {key: str(model.get_rt_info([section, key]).value) for key in keys}
