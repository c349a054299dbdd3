"""What is in the package: trained models by name, and published weights of backbones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from artifactnet.config import ModelConfig
from artifactnet.files import sha256_file
from artifactnet.models.metadata import read_metadata
from artifactnet.types import ArtifactNetError
from artifactnet.weights import DEFAULT as DEFAULT

FOLDER = Path(__file__).parents[1] / "weights"
SUFFIX = ".safetensors"


class PublishedWeights(NamedTuple):
    """A file of published backbone weights in the package."""

    name: str
    sha256: str

    @property
    def path(self) -> Path:
        """The file."""
        return FOLDER / f"{self.name}{SUFFIX}"

    def check(self) -> None:
        """Compare the file with the published one.

        Raises:
            ArtifactNetError: it is missing, or one bit of it differs.
        """
        hint = "reinstall artifactnet"
        if not self.path.is_file():
            raise ArtifactNetError(f"{self.path}: missing from this installation; {hint}")
        if sha256_file(self.path) != self.sha256:
            raise ArtifactNetError(
                f"{self.path}: not the published file (its SHA-256 differs); {hint}"
            )


# timm's name of the backbone -> its weights
PUBLISHED = {
    "vit_small_patch14_dinov2": PublishedWeights(
        "dinov2-small", "52cc6ece26324d17d7af1c45ef24cf942ae33d6acff53dac0bf870ddef203dc2"
    )
}


class PackagedModel(NamedTuple):
    """A packaged model; ``trained_on`` describes its data ("" if unspecified)."""

    name: str
    path: Path
    trained_on: str


def list_packaged() -> list[str]:
    """Names of the packaged models, sorted."""
    backbones = {weights.name for weights in PUBLISHED.values()}
    return sorted({path.stem for path in FOLDER.glob(f"*{SUFFIX}")} - backbones)


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


def find_published(config: ModelConfig) -> PublishedWeights | None:
    """Published weights of the backbone that are in the package, or None."""
    weights = PUBLISHED.get(config.backbone.partition(".")[0])
    return weights if weights is not None and weights.path.is_file() else None


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
