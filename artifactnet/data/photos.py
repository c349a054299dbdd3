"""Real photographs that are already on disk because they ship inside installed packages.

The table fixes which photograph belongs to which split, so that no scene is ever seen in two
of them (the two views of the motorcycle are one scene). Nothing is downloaded, and none of
the packages is imported: only their folder is looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from artifactnet.data.images import decode
from artifactnet.types import ArtifactNetError, UInt8Array


@dataclass(frozen=True, slots=True)
class Photo:
    """One packaged photograph.

    Attributes:
        scene: what it shows; photographs of one scene share a split.
        split: ``train``, ``val`` or ``test``.
        package: importable name of the package that ships it.
        file: path inside the package folder.
        weight: how often it is drawn, relative to the others of its split. Colour scenes count
            twice as much as gray ones, since a network should not take colour for an artifact.
    """

    scene: str
    split: str
    package: str
    file: str
    weight: float


_SKIMAGE = "skimage"
_PIP_NAMES = {"skimage": "scikit-image", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}

PHOTOS: tuple[Photo, ...] = (
    Photo("astronaut", "train", _SKIMAGE, "data/astronaut.png", 2.0),
    Photo("coffee", "train", _SKIMAGE, "data/coffee.png", 2.0),
    Photo("flower", "train", "sklearn", "datasets/images/flower.jpg", 2.0),
    Photo("motorcycle", "train", _SKIMAGE, "data/motorcycle_left.png", 1.0),
    Photo("motorcycle", "train", _SKIMAGE, "data/motorcycle_right.png", 1.0),
    Photo("retina", "train", _SKIMAGE, "data/retina.jpg", 1.0),
    Photo("tissue", "train", _SKIMAGE, "data/ihc.png", 1.0),
    Photo("galaxies", "train", _SKIMAGE, "data/hubble_deep_field.jpg", 1.0),
    Photo("clock", "train", _SKIMAGE, "data/clock_motion.png", 1.0),
    Photo("brick", "train", _SKIMAGE, "data/brick.png", 0.5),
    Photo("grass", "train", _SKIMAGE, "data/grass.png", 0.5),
    Photo("coins", "train", _SKIMAGE, "data/coins.png", 0.5),
    Photo("page", "train", _SKIMAGE, "data/page.png", 0.5),
    Photo("rocket", "val", _SKIMAGE, "data/rocket.jpg", 2.0),
    Photo("camera", "val", _SKIMAGE, "data/camera.png", 1.0),
    Photo("gravel", "val", _SKIMAGE, "data/gravel.png", 0.5),
    Photo("cat", "test", _SKIMAGE, "data/chelsea.png", 1.0),
    Photo("portrait", "test", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", 1.0),
    Photo("temple", "test", "sklearn", "datasets/images/china.jpg", 1.0),
)


def of_split(split: str) -> tuple[Photo, ...]:
    """The photographs of ``split`` (``train``, ``val`` or ``test``), in a fixed order."""
    return tuple(photo for photo in PHOTOS if photo.split == split)


def locate(photo: Photo) -> Path:
    """Path of the file inside its installed package.

    Raises:
        ArtifactNetError: the package or the file is missing; says what to install.
    """
    pip_name = _PIP_NAMES[photo.package]
    spec = find_spec(photo.package)
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactNetError(
            f"demo photograph {photo.file}: the package {photo.package!r} that ships it is not "
            f"installed; run: pip install {pip_name}"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / photo.file
    if not path.is_file():
        raise ArtifactNetError(
            f"demo photograph {path}: missing from the installed {pip_name}; "
            f"run: pip install --force-reinstall {pip_name}"
        )
    return path


@lru_cache(maxsize=len(PHOTOS))
def read(photo: Photo) -> UInt8Array:
    """Decoded photograph, (H, W, 3) uint8 sRGB, read-only and kept for the process.

    Raises:
        ArtifactNetError: the file is missing or cannot be decoded.
    """
    pixels = decode(locate(photo), f"demo photograph {photo.file} of {_PIP_NAMES[photo.package]}")
    pixels.setflags(write=False)  # shared by every crop of this process
    return pixels
