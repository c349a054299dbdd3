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
        reason = f"{error!s:.200}"
        raise ArtifactNetError(f"{path}: not a readable safetensors file: {reason}") from error
    if metadata.get("format") != FORMAT:
        raise ArtifactNetError(
            f"{path}: not a model saved by ArtifactNet (format {metadata.get('format')!r:.80}, "
            f"expected {FORMAT!r}); bare backbone weights go into model.weights"
        )
    try:
        model, notices, extra = (json.loads(metadata[key]) for key in ("model", "notices", "extra"))
        if not (isinstance(notices, list) and isinstance(extra, dict)):
            raise TypeError("notices must be a list, extra facts an object")
        config = _from_dict(ModelConfig, model, str(path))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactNetError(
            f"{path}: the facts in the file are damaged ({type(error).__name__}: {error!s:.200}); "
            "copy or download it again"
        ) from error
    return {"model": config, "notices": tuple(notices), "extra": extra}


def _from_dict(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Dataclass from JSON; a key this version does not know means a newer file."""
    if not isinstance(values, dict):
        raise TypeError(f"{kind.__name__} must be an object")
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - {field.name for field in fields(kind)})  # type: ignore[arg-type]
    if unknown:
        raise ArtifactNetError(
            f"{where}: saved by a newer ArtifactNet (unknown keys {unknown!r:.200}); update"
        )
    arguments = {
        key: _from_dict(hints[key], value, where) if is_dataclass(hints[key]) else value
        for key, value in values.items()
    }
    return kind(**arguments)
