"""torch.export: runs exported ``.pt2`` files in PyTorch, unless they hold pickled objects."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from artifactnet.inference.backends.metadata import facts_from_strings
from artifactnet.inference.backends.session import Session, first_line, runtime_errors
from artifactnet.types import ArtifactNetError, Float32Array, UInt8Array

METADATA = "artifactnet.json"  # among the extra files of the archive


class ProgramSession(Session):
    """An exported ``.pt2`` file in PyTorch; ``threads`` holds in the whole process.

    A file with pickled objects, which could run code, is refused.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.facts = facts_from_strings(_inspect(path), str(path))
        with runtime_errors(f"{path}: PyTorch {torch.__version__} cannot read this file"):
            program = torch.export.load(path)
        self._module: Any = program.module()
        example = program.graph_signature.user_inputs[0]
        shape = next(n.meta["val"].shape for n in program.graph.nodes if n.name == example)
        self.shape = tuple(int(side) for side in shape[1:3])
        if threads:
            torch.set_num_threads(threads)

    def run(self, frames: UInt8Array) -> list[Float32Array]:
        """See `Session.run`."""
        with torch.no_grad():
            return [output.numpy() for output in self._module(torch.from_numpy(frames))]


def _inspect(path: Path) -> dict[str, str]:
    """Metadata of a ``.pt2`` file; nothing of it is unpickled on the way."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            entries = [name for name in names if name.endswith(f"/extra/{METADATA}")]
            strings = json.loads(archive.read(entries[0])) if entries else {}
            pickled = _pickled(archive)
    except (
        *(OSError, EOFError, zipfile.BadZipFile, zlib.error),
        *(ValueError, RuntimeError),  # no JSON, or too deep; an encrypted archive
    ) as error:
        raise ArtifactNetError(f"{path}: not a readable .pt2 file: {first_line(error)}") from error
    if not isinstance(strings, dict) or not all(isinstance(x, str) for x in strings.values()):
        raise ArtifactNetError(f"{path}: its metadata is damaged; export the model again")
    if strings and pickled:
        raise ArtifactNetError(
            f"{path}: holds pickled objects ({pickled}), which could run code and which an export "
            "never has; download the file again from its author"
        )
    return strings


def _pickled(archive: zipfile.ZipFile) -> str | None:
    """First entry of a ``.pt2`` archive that `torch.export.load` would unpickle unsafely."""
    for name in archive.namelist():
        leaf = name.rpartition("/")[2]
        if leaf.startswith(("custom_obj", "opaque_obj")):
            return name
        folder = name.rpartition("/")[0].rpartition("/")[2]
        if folder in ("weights", "constants") and leaf.endswith((".pt", ".pth")):
            return name  # the layout of older versions, pickled as a whole
        if leaf.endswith("_config.json") and _names_pickles(archive.read(name)):
            return name
        if folder == "sample_inputs" and archive.getinfo(name).file_size:
            try:
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
            except Exception:  # more than tensors: the reader would then take pickles as they are
                return name
    return None


def _names_pickles(content: bytes) -> bool:
    """Whether a table of weights names pickled ones; ValueError if it is no such table."""
    table = json.loads(content)
    entries = table.get("config", {}) if isinstance(table, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise ValueError("its table of weights is damaged; export the model again")
    return any(entry.get("use_pickle") for entry in entries.values())
