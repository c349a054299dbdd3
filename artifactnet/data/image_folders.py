"""Images in folders: the layouts of labelled data, and finding the images of annotations."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from artifactnet.data.image_files import list_images, raise_unreadable
from artifactnet.types import Annotation, ArtifactNetError, Record

SPLITS = ("train", "val", "test")
CLASSES = {"real": 0, "0_real": 0, "fake": 1, "1_fake": 1}  # folder name, any case -> label
MASKS = "masks"
LAYOUTS = (
    "known layouts: ROOT/{real,fake}/..., ROOT/{0_real,1_fake}/..., "
    "ROOT/GENERATOR/{0_real,1_fake}/..., each also below ROOT/{train,val,test}; "
    "sub-folders of fake/ name generators; masks/ beside fake/ holds PNGs of the same stem"
)


@dataclass(frozen=True, slots=True)
class FolderImage:
    """One image file, its split folder (None where the data has none) and mask file (or None).

    The uid of the record is the file stem.
    """

    record: Record
    split: str | None
    mask: str | None


def find_images(root: Path) -> tuple[list[FolderImage], list[str]]:
    """All images below ``root``, ordered by path, and warnings about the layout.

    Raises:
        ArtifactNetError: the folder is missing, unreadable, empty, of an unknown layout, or a split
            has images of one class only.
    """
    if not root.is_dir():
        raise ArtifactNetError(f"data.root={root}: no such folder; {LAYOUTS}")
    items: list[FolderImage] = []
    orphans: list[str] = []
    for folder, classes in _class_folders(root):
        parts = folder.relative_to(root).parts
        names = [part for part in parts if part.lower() in SPLITS]
        if len(names) > 1:
            raise ArtifactNetError(f"{folder}: lies in more than one split folder; {LAYOUTS}")
        split = names[0].lower() if names else None
        generator = next((part for part in parts if part.lower() not in SPLITS), None)
        added, unmatched = _list_set(folder, classes, split, generator)
        items += added
        orphans += unmatched
    if not items:
        raise ArtifactNetError(f"data.root={root}: no images found; {LAYOUTS}")
    by_split: dict[str | None, set[int]] = defaultdict(set)
    for item in items:
        by_split[item.split].add(item.record.label)
    if None in by_split and len(by_split) > 1:
        raise ArtifactNetError(
            f"data.root={root}: some images lie below train/val/test and some do not; {LAYOUTS}"
        )
    for name, labels in by_split.items():
        if len(labels) == 1:
            place = root if name is None else root / name
            missing = "real" if 1 in labels else "fake"
            raise ArtifactNetError(f"{place}: holds no {missing} images; {LAYOUTS}")
    if orphans:
        text = f"{len(orphans)} masks have no fake image of the same stem, e.g. {orphans[0]}"
        return items, [text]
    return items, []


def _class_folders(root: Path) -> Iterator[tuple[Path, dict[str, Path]]]:
    """Folders that hold class folders, and what they hold (lower-case name -> path)."""
    for current, names, _ in os.walk(root, onerror=raise_unreadable, followlinks=True):
        names.sort()
        below = {name.lower(): Path(current, name) for name in names}
        classes = {key: path for key, path in below.items() if key in CLASSES or key == MASKS}
        if CLASSES.keys() & classes.keys():
            if below.keys() & set(SPLITS):
                raise ArtifactNetError(
                    f"{current}: holds class folders and split folders; {LAYOUTS}"
                )
            yield Path(current), classes
            names.clear()  # no generator folders beside class folders


def _list_set(
    folder: Path, classes: dict[str, Path], split: str | None, generator: str | None
) -> tuple[list[FolderImage], list[str]]:
    """Images of one pair of class folders, and the masks that belong to none of them."""
    masks = dict(list_images(classes[MASKS])) if MASKS in classes else {}
    by_stem = {os.path.splitext(name)[0]: path for name, path in masks.items()}
    items = []
    used = set()
    for key, label in CLASSES.items():
        for name, path in list_images(classes[key]) if key in classes else ():
            stem, _ = os.path.splitext(name)
            above = name.split(os.sep)[:-1]
            if above and above[0].lower() in SPLITS:
                raise ArtifactNetError(
                    f"{os.path.dirname(path)}: split folders belong above {key}/; {LAYOUTS}"
                )
            mask = by_stem.get(stem) if label == 1 else None
            used.add(stem)
            if label == 0:
                maker, annotation = "real", Annotation.CLEAN
            else:
                maker = generator or (above[0] if above else "fake")
                annotation = Annotation.NONE if mask is None else Annotation.MASK
            record = Record(os.path.basename(stem), label, maker, annotation, path, path=path)
            items.append(FolderImage(record, split, mask))
    return items, [path for stem, path in by_stem.items() if stem not in used]


def find_repeated_stems(items: list[FolderImage]) -> tuple[set[str], list[str]]:
    """Uids, which are file stems, below more than one split folder, and a warning about them."""
    places: dict[str, set[str | None]] = defaultdict(set)
    for item in items:
        places[item.record.uid].add(item.split)
    uids = {uid for uid, splits in places.items() if len(splits) > 1}
    return uids, [] if not uids else [
        f"{len(uids)} file stems occur in more than one split folder, e.g. {min(uids)!r}; they are "
        "taken for different pictures: if they are not, the splits leak into each other"
    ]


class ImageFolder:
    """The images below a folder, searched deeply, found by the names that annotations give them.

    ``maps`` are relative paths of files in it that are maps of images, not images.

    Raises:
        ArtifactNetError: there is no such folder, it cannot be listed, or holds no image.
    """

    def __init__(self, folder: Path, maps: Collection[str] = ()) -> None:
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

        Folders and suffix of the ``name``, as an annotation gives it, may be wrong. None if there
        is none.

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
    """Names for the maps of images: path -> path below ``folder``.

    Without suffix, unless another image differs in that alone.
    """
    names = {path: os.path.relpath(path, folder) for path in paths}
    stems = {path: os.path.splitext(name)[0] for path, name in names.items()}
    count = Counter(stems.values())
    return {path: stem if count[stem] == 1 else names[path] for path, stem in stems.items()}
