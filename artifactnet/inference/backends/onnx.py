"""ONNX Runtime: runs exported ``.onnx`` files."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from artifactnet.inference.backends.metadata import INPUT, facts_from_strings
from artifactnet.inference.backends.session import Session, import_runtime, runtime_errors
from artifactnet.types import Float32Array, UInt8Array


def import_onnxruntime() -> ModuleType:
    """The package; ArtifactNetError if it is not installed."""
    pip = "pip install 'onnxruntime>=1.18' (or 'artifactnet[onnx]')"
    return import_runtime("onnxruntime", "ONNX files are run by onnxruntime", pip)


class OnnxSession(Session):
    """An exported ``.onnx`` file in ONNX Runtime."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors; warnings are about its own optimisations
        with runtime_errors(f"{path}: ONNX Runtime {runtime.__version__} cannot read this file"):
            self._session: Any = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.facts = facts_from_strings(metadata, str(path))
        self.shape = tuple(self._session.get_inputs()[0].shape[1:3])

    def run(self, frames: UInt8Array) -> list[Float32Array]:
        """See `Session.run`."""
        outputs: list[Float32Array] = self._session.run(list(self.facts.outputs), {INPUT: frames})
        return outputs
