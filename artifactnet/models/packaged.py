"""Trained models inside the package: found by name, or by their backbone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from artifactnet.config import ModelConfig
from artifactnet.models.metadata import read_metadata
from artifactnet.types import ArtifactNetError

FOLDER = Path(__file__).parents[1] / "weights"
SUFFIX = ".safetensors"


class PackagedModel(NamedTuple):
    """A packaged model; ``trained_on`` describes its data ("" if unspecified)."""

    name: str
    path: Path
    trained_on: str


def list_packaged() -> list[str]:
    """Names of the packaged models, sorted."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def resolve_model(path: str | Path) -> Path:
    """The file or folder at a path, or else the packaged model of that name.

    Raises:
        ArtifactNetError: neither; the message lists the packaged models.
    """
    if Path(path).exists():
        return Path(path)
    known = list_packaged()
    if str(path) in known:
        return FOLDER / f"{path}{SUFFIX}"
    listed = f"; models in the package: {', '.join(known)}" if known else ""
    raise ArtifactNetError(f"{path}: no such model file{listed}")


def find_backbone(config: ModelConfig) -> PackagedModel | None:
    """The first packaged model, by name, with the same backbone; or None.

    ``backbone``, ``backbone_kwargs`` and stem must be equal; all else may differ.

    Raises:
        ArtifactNetError: a file of the package is damaged.
    """
    for name in list_packaged():
        path = FOLDER / f"{name}{SUFFIX}"
        metadata = read_metadata(path)
        if _backbone(metadata["model"]) == _backbone(config):
            trained_on = metadata["extra"].get("packed", {}).get("trained_on")
            return PackagedModel(name, path, trained_on or "")
    return None


def _backbone(config: ModelConfig) -> tuple[object, ...]:
    """Everything that decides which tensors a backbone has."""
    width = config.stem_width if config.stem == "conv" else None
    return config.backbone, config.backbone_kwargs, config.stem, width
