"""The facts in a saved model's file: what it is, readable without building it."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from safetensors import SafetensorError, safe_open

from artifactnet.config import ModelConfig
from artifactnet.types import ArtifactNetError

FORMAT = "artifactnet-1"
T = TypeVar("T")


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Config, notices and extra facts of a saved model, without its weights.

    Returns:
        ``{"model": ModelConfig, "notices": tuple[str, ...], "extra": dict}``.

    Raises:
        ArtifactNetError: no such file, not a safetensors file, or not one of ours.
    """
    if not Path(path).is_file():
        raise ArtifactNetError(f"{path}: no such model file")
    try:
        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ArtifactNetError(f"{path}: not a readable safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ArtifactNetError(
            f"{path}: not a model saved by ArtifactNet (format {metadata.get('format')!r}, "
            f"expected {FORMAT!r}); bare backbone weights go into model.weights"
        )
    return {
        "model": _from_dict(ModelConfig, json.loads(metadata["model"]), str(path)),
        "notices": tuple(json.loads(metadata["notices"])),
        "extra": json.loads(metadata["extra"]),
    }


def _from_dict(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Dataclass from JSON; a key this version does not know means a newer file."""
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - {field.name for field in fields(kind)})  # type: ignore[arg-type]
    if unknown:
        raise ArtifactNetError(
            f"{where}: saved by a newer ArtifactNet (unknown keys {', '.join(unknown)}); update"
        )
    arguments = {
        key: _from_dict(hints[key], value, where) if is_dataclass(hints[key]) else value
        for key, value in values.items()
    }
    return kind(**arguments)
