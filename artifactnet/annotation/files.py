"""Files of `annotate`: pairs of image and mask that go in, and the files that come out."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from artifactnet.data.image_files import FileWalk, Skipped
from artifactnet.data.image_folders import map_keys
from artifactnet.files import write_text
from artifactnet.inference.inputs import Failure
from artifactnet.types import ArtifactNetError

SUFFIX = ".jsonl"


class OutputFiles:
    """The output and the files next to it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.raw = out.with_suffix(f".raw{SUFFIX}")  # log of every answer
        self.rejected = out.with_suffix(f".rejected{SUFFIX}")  # images without a valid answer
        self.heatmaps = out.with_name(f"{out.stem}_heatmaps")  # of bit fields

    def check(self, inputs: tuple[Path, ...], pictures: Path | None, bit_fields: bool) -> None:
        """Refuse to overwrite a foreign file, or to write images into an input folder.

        Raises:
            ArtifactNetError: the output is foreign, or ``pictures`` (the drawn images) or the
                heatmaps of bit fields would be inside of ``inputs``.
        """
        if self.out.suffix != SUFFIX:
            raise ArtifactNetError(f"--out {self.out}: must end in {SUFFIX}")
        if self.out.exists() and not self.raw.exists():
            raise ArtifactNetError(
                f"{self.out}: exists and was not made by annotate ({self.raw.name} is not next to "
                "it); give another --out"
            )
        for place in [*([self.heatmaps] if bit_fields else []), *([pictures] if pictures else [])]:
            for folder in inputs:
                if place.resolve().is_relative_to(folder.resolve()):
                    raise ArtifactNetError(
                        f"{place}: is inside {folder}, where its images would be read as input; "
                        "give a folder outside of it"
                    )


def count_rows(path: Path) -> int:
    """Lines of a file that `write_rows` has written; 0 if there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Atomically write JSON lines."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and the map of its defects.

    ``image`` and ``mask`` are paths of the files.
    """

    name: str  # of the image, unique in its folder: ``relative`` without suffix, if that is unique
    image: str
    relative: str  # path of the image below its folder, with forward slashes
    mask: str


def find_pairs(
    images: Path, masks: Path, skipped: Skipped | None = None
) -> tuple[list[Pair], list[Failure]]:
    """Match two folders by file stem.

    A map with the same relative path matches (``a/7.png`` for ``a/7.jpg``); otherwise the one with
    the same stem anywhere, if no other map and no other image has this stem. Both folders are
    searched recursively; one may be inside the other. Files that are not images are counted in
    ``skipped``, unless they have the name of one.

    Returns:
        The pairs, ordered by image, and the images without a map, or without an unambiguous one,
        after what has the name of an image and is none.

    Raises:
        ArtifactNetError: a folder is missing, cannot be listed or holds no image, or both are one.
    """
    for folder, what in ((images, "images"), (masks, "masks")):
        if not folder.is_dir():
            raise ArtifactNetError(f"{folder}: no such folder of {what}")
    if images.resolve() == masks.resolve():
        raise ArtifactNetError(f"{images}: images and masks need separate folders")
    skipped = Skipped() if skipped is None else skipped
    pictures, failures = _list_images(images, masks, skipped)
    maps, unusable = _list_images(masks, images, skipped)
    failures += unusable
    for folder, files in ((images, pictures), (masks, maps)):
        if not files:
            others = [f"{f.path}: {f.reason}" for f in failures[:1]] + skipped.lines()
            held = f" ({'; '.join(others)})" if others else ""
            raise ArtifactNetError(f"{folder}: holds no images{held}")
    names = map_keys(pictures.values(), images)
    maps_by_place, maps_by_stem = _index(maps)
    images_by_place, images_by_stem = _index(pictures)
    pairs: list[Pair] = []
    for relative, image in pictures.items():
        place, stem = os.path.splitext(relative)[0], PurePath(relative).stem
        found, rivals = maps_by_place[place], images_by_place[place]
        if not found:
            found, rivals = maps_by_stem[stem], images_by_stem[stem]
        if not found:
            failures.append(Failure(image, f"no mask of this name in {masks}"))
        elif len(found) > 1:
            failures.append(Failure(image, f"{found[0]} and {found[1]} could be its mask"))
        elif len(rivals) > 1:
            other = next(path for path in rivals if path != image)
            failures.append(Failure(image, f"its mask {found[0]} could be that of {other} as well"))
        else:
            key = PurePath(names[image]).as_posix()
            pairs.append(Pair(key, image, PurePath(relative).as_posix(), found[0]))
    return pairs, failures


def _list_images(
    folder: Path, without: Path, skipped: Skipped
) -> tuple[dict[str, str], list[Failure]]:
    """Relative path -> path of the images below ``folder``, but not below ``without``.

    Also what has the name of an image and is none; other files are counted in ``skipped``.
    """
    images, failures = {}, []
    for entry in FileWalk(without).files(folder, skipped):
        if entry.reason is None:
            images[entry.name] = entry.path
        elif entry.claims:
            failures.append(Failure(entry.path, entry.complaint))
        else:
            skipped.add(entry.reason, entry.path)
    return images, failures


def _index(files: dict[str, str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Paths by place (relative path without suffix), and by file stem."""
    by_place: dict[str, list[str]] = defaultdict(list)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for relative, path in files.items():
        by_place[os.path.splitext(relative)[0]].append(path)
        by_stem[PurePath(relative).stem].append(path)
    return by_place, by_stem
