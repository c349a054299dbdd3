"""The trained models that travel with the package: found by name, or by their backbone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from artifactnet.config import ModelConfig
from artifactnet.types import ArtifactNetError

FOLDER = Path(__file__).parents[1] / "weights"
SUFFIX = ".safetensors"


class PackagedModel(NamedTuple):
    """A model of the package.

    Attributes:
        name: what `resolve` finds it by.
        path: its file.
        trained_on: the data, in words; "" where whoever packed it did not say.
    """

    name: str
    path: Path
    trained_on: str


def names() -> list[str]:
    """Names of the models in the package, sorted."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def resolve(path: str | Path) -> Path:
    """The file or folder at a path, or the packaged model of that name.

    Args:
        path: whatever exists there wins over a model of the same name.

    Raises:
        ArtifactNetError: neither; the message lists the names that there are.
    """
    if Path(path).exists():
        return Path(path)
    known = names()
    if str(path) in known:
        return FOLDER / f"{path}{SUFFIX}"
    listed = f"; models in the package: {', '.join(known)}" if known else ""
    raise ArtifactNetError(f"{path}: no such model file{listed}")


def with_backbone_of(config: ModelConfig) -> PackagedModel | None:
    """The packaged model whose backbone has the same tensors, the first by name; or None.

    The name of the backbone, the arguments it is built with and its stem must be equal. Image
    size, heads and preprocessing may differ.

    Args:
        config: of the model that looks for weights.

    Raises:
        ArtifactNetError: a file of the package is damaged.
    """
    # checkpoint imports backbone, which imports this module
    from artifactnet.models.checkpoint import read_metadata

    for name in names():
        path = FOLDER / f"{name}{SUFFIX}"
        metadata = read_metadata(path)
        if _backbone(metadata["model"]) == _backbone(config):
            trained_on = metadata["extra"].get("packed", {}).get("trained_on")
            return PackagedModel(name, path, trained_on or "")
    return None


def _backbone(config: ModelConfig) -> tuple[object, ...]:
    """All that decides which tensors a backbone has."""
    width = config.stem_width if config.stem == "conv" else None
    return config.backbone, config.backbone_kwargs, config.stem, width
