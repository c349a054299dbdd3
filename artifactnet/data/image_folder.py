"""Joining annotations with images that lie in a folder of their own."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

from artifactnet.data.layout import list_images
from artifactnet.types import ArtifactNetError


class ImageFolder:
    """The images below a folder, found by the names that annotations give them."""

    def __init__(self, folder: Path, maps: Collection[str] = ()) -> None:
        """List the folder.

        Args:
            folder: searched deeply.
            maps: relative paths of files in it that are maps of images, not images.

        Raises:
            ArtifactNetError: there is no such folder, it cannot be listed, or holds no image.
        """
        if not folder.is_dir():
            raise ArtifactNetError(f"{folder}: no such folder of images")
        self.folder = folder
        others = {os.path.normpath(name) for name in maps}
        self._exact = {name: path for name, path in list_images(folder) if name not in others}
        if not self._exact:
            raise ArtifactNetError(f"{folder}: holds no images")
        self._stems: dict[str, list[str]] = defaultdict(list)
        for name, path in self._exact.items():
            self._stems[Path(name).stem].append(path)
        self._keys = map_keys(self._exact.values(), folder)

    @property
    def paths(self) -> list[str]:
        """Paths of all images, sorted by folder."""
        return list(self._exact.values())

    def find(self, name: str) -> str | None:
        """Path of an image: that of this very relative path, else the one of the same file stem.

        Args:
            name: as an annotation gives it; folders in it and its suffix need not be right.

        Returns:
            the path, or None if there is none.

        Raises:
            ArtifactNetError: several images have this stem and none this path.
        """
        exact = self._exact.get(os.path.normpath(name))
        if exact is not None:
            return exact
        paths = self._stems.get(Path(name).stem, [])
        if len(paths) > 1:
            raise ArtifactNetError(
                f"{self.folder}: {len(paths)} images could be {name!r}: {paths[0]} and {paths[1]}; "
                "keep one of them"
            )
        return paths[0] if paths else None

    def key(self, path: str) -> str:
        """Name for the maps of an image, see `map_keys`."""
        return self._keys[path]

    def stem(self, path: str) -> str:
        """Path of an image below the folder, without suffix: two formats of it share that."""
        return os.path.splitext(os.path.relpath(path, self.folder))[0]


def map_keys(paths: Iterable[str], folder: Path) -> dict[str, str]:
    """Names for the maps of images.

    Args:
        paths: of all images.
        folder: what the names are relative to.

    Returns:
        path -> path below the folder; without suffix, unless another image differs in that alone.
    """
    names = {path: os.path.relpath(path, folder) for path in paths}
    stems = {path: os.path.splitext(name)[0] for path, name in names.items()}
    count = Counter(stems.values())
    return {path: stem if count[stem] == 1 else names[path] for path, stem in stems.items()}
