"""The images of a folder, and what their paths say about them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

from artifactnet.annotation.pictures import to_jpeg
from artifactnet.data.crops import crop_entity
from artifactnet.data.duplicates import hash_bytes
from artifactnet.data.image_files import FileWalk, Skipped
from artifactnet.data.image_folders import map_keys
from artifactnet.data.images import decode_image, shown_size
from artifactnet.data.regions import Corners
from artifactnet.inference.inputs import Failure
from artifactnet.types import ArtifactNetError, UInt8Array


@dataclass(frozen=True, slots=True)
class Picture:
    """A generated image.

    Attributes:
        path: of the file.
        relative: below its folder, with forward slashes; names the image.
        key: ``relative`` without suffix where that is unique; begins the ids of its entities.
        uid: of the prompt, see `find_pictures`.
        generator: see `find_pictures`.
        digest: of the file's content.
        size: (height, width) as shown.
    """

    path: str
    relative: str
    key: str
    uid: str
    generator: str | None
    digest: str
    size: tuple[int, int]


def find_pictures(
    folder: Path, generator_folders: bool, skipped: Skipped
) -> tuple[list[Picture], list[Failure]]:
    """The images below a folder, ordered by path, and files that only have the name of one.

    Args:
        folder: searched recursively.
        generator_folders: ``FOLDER/GENERATOR/PROMPT.png``: the first folder of a path names the
            generator, the rest of it is the uid, so that all images of a prompt share one.
            Otherwise each image has a uid of its own.
        skipped: counts files that are no images.

    Raises:
        ArtifactNetError: there is no such folder, it holds no image, or one lies in no generator's
            folder.
    """
    if not folder.is_dir():
        raise ArtifactNetError(f"{folder}: no such folder of images")
    paths: dict[str, str] = {}
    failures = []
    for entry in FileWalk().files(folder, skipped):
        if entry.reason is None:
            paths[entry.path] = PurePath(entry.name).as_posix()
        elif entry.claims:
            failures.append(Failure(entry.path, entry.complaint))
        else:
            skipped.add(entry.reason, entry.path)
    if not paths:
        others = [f"{f.path}: {f.reason}" for f in failures[:1]] + skipped.lines()
        held = f" ({'; '.join(others)})" if others else ""
        raise ArtifactNetError(f"{folder}: holds no images{held}")
    keys = map_keys(paths, folder)
    pictures = []
    for path, relative in paths.items():
        key = PurePath(keys[path]).as_posix()
        uid, generator = key, None
        if generator_folders:
            generator, slash, uid = relative.partition("/")
            if not slash:
                raise ArtifactNetError(
                    f"{path}: lies in no folder of a generator; with --generator-folders each "
                    f"image is {folder}/GENERATOR/PROMPT.png"
                )
            uid = os.path.splitext(uid)[0]
        try:
            digest = hash_bytes(Path(path).read_bytes()).hex()
            height, width, _ = shown_size(path, path)
        except OSError as error:
            failures.append(Failure(path, f"cannot be read ({error.strerror})"))
        except ArtifactNetError as error:
            failures.append(Failure(path, str(error).removeprefix(f"{path}: ")))
        else:
            pictures.append(Picture(path, relative, key, uid, generator, digest, (height, width)))
    return pictures, failures


class Shown:
    """The pixels of a picture, decoded when they are first needed."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    @cached_property
    def pixels(self) -> UInt8Array:
        """(H, W, 3) uint8."""
        return decode_image(self._picture.path, self._picture.path)

    def jpeg(self) -> bytes:
        """The image as it is sent to an endpoint."""
        return to_jpeg(self.pixels)

    def crop(self, box: Corners) -> UInt8Array:
        """What is shown of an entity."""
        return crop_entity(self.pixels, box)
