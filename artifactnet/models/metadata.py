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
        ``{"model": ModelConfig, "notices": tuple[str, ...], "extra": dict, "backbones": dict,
        "tried": dict | None}``; ``tried`` holds the fields of `backbone.Tried`, if known;
        ``backbones`` names published weights that the file leaves out: prefix of the tensors ->
        ``{"name": str, "sha256": str}``, see `shared_backbone`.

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
        tried = _tried(json.loads(metadata.get("tried", "null")))
        backbones = _backbones(metadata.get("backbones", "{}"), str(path))
        config = _from_dict(ModelConfig, model, str(path))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactNetError(
            f"{path}: the facts in the file are damaged ({type(error).__name__}: {error!s:.200}); "
            "copy or download it again"
        ) from error
    return {
        "model": config,
        "notices": tuple(notices),
        "extra": extra,
        "backbones": backbones,
        "tried": tried,
    }


def _tried(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """Lists of JSON as the tuples that they were."""
    if found is None:
        return None
    return {
        "num_features": int(found["num_features"]),
        "level_channels": tuple(map(int, found["level_channels"])),
        "no_pyramid": found["no_pyramid"],
        "final": None if found["final"] is None else tuple(map(int, found["final"])),
    }


def _backbones(text: str, where: str) -> dict[str, dict[str, str]]:
    """The published weights that a file leaves out."""
    found = json.loads(text)
    for prefix, facts in found.items():
        unknown = sorted(set(facts) - {"name", "sha256"})
        if unknown:
            raise _newer(where, unknown)
        strings = isinstance(facts["name"], str) and isinstance(facts["sha256"], str)
        if not (strings and prefix.endswith(".")):
            raise TypeError("backbones must map a prefix to name and sha256")
    return dict(found)


def _newer(where: str, unknown: list[str]) -> ArtifactNetError:
    return ArtifactNetError(
        f"{where}: saved by a newer ArtifactNet (unknown keys {unknown!r:.200}); update"
    )


def _from_dict(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Dataclass from JSON; a key this version does not know means a newer file."""
    if not isinstance(values, dict):
        raise TypeError(f"{kind.__name__} must be an object")
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - {field.name for field in fields(kind)})  # type: ignore[arg-type]
    if unknown:
        raise _newer(where, unknown)
    arguments = {
        key: _from_dict(hints[key], value, where) if is_dataclass(hints[key]) else value
        for key, value in values.items()
    }
    return kind(**arguments)
