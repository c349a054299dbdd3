"""Test sets whose images are files in folders that say what they are."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from artifactnet.data import folder_names
from artifactnet.data.image_files import Skipped, list_images
from artifactnet.data.image_folders import FolderImage, find_images, map_keys
from artifactnet.data.sources.folder import FolderSource
from artifactnet.data.test_sets.base import Reading, plain_record, truth_stamp
from artifactnet.types import ArtifactNetError

# Bammey, "Synthbuster: Towards Detection of Diffusion Model Generated Images", 2023
SYNTHBUSTER = (
    *("dalle2", "dalle3", "firefly", "glide", "midjourney-v5", "stable-diffusion-1-3"),
    *("stable-diffusion-1-4", "stable-diffusion-2", "stable-diffusion-xl"),
)
_ORIGINALS = "original"  # folder of FaceForensics++'s real videos


def read_class_folders(root: Path) -> Reading:
    """Folders of real and of fake images, or of one class, as `find_images` reads them.

    ``test`` is read where the folders name splits, else ``val``, else all images. A uid is the path
    below the root, without suffix. Real images beside the fakes of one generator
    (``GENERATOR/{0_real,1_fake}``) are of its part.

    Raises:
        ArtifactNetError: see `find_images`.
    """
    items, warnings = find_images(root, one_class=True)
    splits = {item.split for item in items}
    chosen = next(split for split in ("test", "val", "train", None) if split in splits)
    used = [item for item in items if item.split == chosen]
    if len(used) < len(items):
        warnings.append(f"{root}: only {chosen}/ is used, {len(used)} of {len(items)} images")
    keys = map_keys([item.record.location for item in used], root)
    used = [
        replace(item, record=replace(item.record, uid=Path(keys[item.record.location]).as_posix()))
        for item in used
    ]
    makers = {
        folder_names.normalized(item.record.generator): item.record.generator
        for item in used
        if item.record.label
    }
    parts = tuple(
        item.record.generator if item.record.label else _part(item.record.location, root, makers)
        for item in used
    )
    truths = tuple(truth_stamp(item.record, (item.mask,)) for item in used)
    return Reading(FolderSource(used), parts, truths, warnings)


def _part(path: str, root: Path, makers: dict[str, str]) -> str:
    """The generator above the class folder of a real image; ``""``: none, or one without fakes."""
    for folder in Path(os.path.relpath(path, root)).parts[:-1]:
        if folder_names.label_of(folder) == 0:
            break
        if folder_names.normalized(folder) in makers:
            return makers[folder_names.normalized(folder)]
    return ""


def read_mmfr(root: Path) -> Reading:
    """MMFR's ``evaluation_sets/GENERATOR/{0_real,1_fake}``, of the data set or that folder itself.

    Raises:
        ArtifactNetError: see `find_images`.
    """
    inner = root / "evaluation_sets"
    return read_class_folders(inner if inner.is_dir() else root)


def read_synthbuster(root: Path) -> Reading:
    """Synthbuster's generator folders; a folder called ``real`` or the like may be beside them.

    Raises:
        ArtifactNetError: there is none of its nine generators.
    """
    inner = root / "synthbuster"
    root = inner if inner.is_dir() else root
    spelled = {folder_names.normalized(name): name for name in SYNTHBUSTER}
    skipped, unused = Skipped(), 0
    files: list[tuple[str, str]] = []  # generator, path
    for name, path in list_images(root, skipped):
        top = name.split(os.sep)[0]
        maker = spelled.get(folder_names.normalized(top))
        maker = "real" if maker is None and folder_names.label_of(top) == 0 else maker
        if maker is None:
            unused += 1
        else:
            files.append((maker, path))
    found = {maker for maker, _ in files}
    missing = [name for name in SYNTHBUSTER if name not in found]
    if len(missing) == len(SYNTHBUSTER):
        raise ArtifactNetError(f"{root}: none of {', '.join(SYNTHBUSTER)} holds images")
    warnings = skipped.describe(root)
    if missing:
        warnings.append(f"{root}: no images of {', '.join(missing)}")
    if unused:
        warnings.append(f"{root}: {unused} images lie in no folder of a generator: not used")
    return Reading(_plain_files(files, root), warnings=warnings)


def read_real_folder(folder: Path) -> Reading:
    """Every image below a folder, as a real one.

    Raises:
        ArtifactNetError: there is no such folder.
    """
    if not folder.is_dir():
        raise ArtifactNetError(f"{folder}: no such folder of real images")
    skipped = Skipped()
    files = [("real", path) for _, path in list_images(folder, skipped)]
    return Reading(_plain_files(files, folder), warnings=skipped.describe(folder))


def _plain_files(files: Sequence[tuple[str, str]], root: Path) -> FolderSource:
    """Images without annotation; ``files`` are (generator, path)."""
    keys = map_keys([path for _, path in files], root)
    records = [
        plain_record(Path(keys[path]).as_posix(), maker, path, path) for maker, path in files
    ]
    return FolderSource([FolderImage(record, None, None) for record in records])


def read_video_frames(root: Path, frames: int | None = None) -> Reading:
    """FaceForensics++ as frames, ``{original,METHOD}/VIDEO/FRAME``; the video is the uid.

    The same number of frames is taken of every video, evenly over its length, so that a long video
    counts no more than a short one (our reading: neither data set nor paper says which frames).

    Args:
        root: the folder of the methods.
        frames: of a video; videos with fewer are left out. None: as many as the shortest has.

    Raises:
        ArtifactNetError: an image lies elsewhere, or no video has so many frames.
    """
    if frames is not None and frames < 1:
        raise ArtifactNetError(f"frames={frames}: must be at least 1")
    skipped = Skipped()
    videos: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, path in list_images(root, skipped):
        folders = name.split(os.sep)[:-1]
        if len(folders) != 2:
            raise ArtifactNetError(f"{path}: frames must lie in METHOD/VIDEO/")
        videos[folders[0], folders[1]].append(path)
    if not videos:
        raise ArtifactNetError(f"{root}: no frames found")
    shortest = min(map(len, videos.values()))
    count = shortest if frames is None else frames
    items, short = [], []
    for (method, video), paths in sorted(videos.items()):
        if len(paths) < count:
            short.append(str(root / method / video))
            continue
        maker = "real" if _is_original(method) else method
        for path in _spread(sorted(paths, key=_natural), count):
            items.append(FolderImage(plain_record(video, maker, path, path), None, None))
    if not items:
        longest = max(map(len, videos.values()))
        raise ArtifactNetError(f"{root}: no video has {count} frames; the longest has {longest}")
    warnings = [
        *skipped.describe(root),
        f"{root}: frames of each of {len(videos) - len(short)} videos: {count}",
    ]
    left_out = {f"videos have fewer than {count} frames": short}
    return Reading(FolderSource(items), warnings=warnings, left_out=left_out)


def _is_original(method: str) -> bool:
    return folder_names.normalized(method) == _ORIGINALS or folder_names.label_of(method) == 0


def _spread(paths: Sequence[str], count: int) -> Iterable[str]:
    """``count`` of the paths, each the middle one of as many equal stretches."""
    return (paths[(2 * k + 1) * len(paths) // (2 * count)] for k in range(count))


def _natural(path: str) -> list[tuple[int, str]]:
    """Sort key in which frame 9 comes before frame 10."""
    pieces = re.split(r"(\d+)", os.path.basename(path))
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]
