"""Images in folders: the layouts of labelled data, and finding the images of annotations."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from artifactnet.data import folder_names
from artifactnet.data.folder_names import CLASSES
from artifactnet.data.image_files import LISTED_ALREADY, Skipped, list_images, real_paths
from artifactnet.data.mask_pictures import find_mask_pictures
from artifactnet.types import Annotation, ArtifactNetError, Record

LAYOUTS = (
    "known layouts: ROOT/{real,fake}/..., ROOT/{0_real,1_fake}/..., ROOT/{nature,ai}/..., "
    "ROOT/GENERATOR/{0_real,1_fake}/..., each also below ROOT/{train,val,test}; "
    "sub-folders of fake/ name generators; masks/ in, beside or above fake/ holds files of the "
    "same stem"
)
_NAMED = 3  # examples in a message
_Parts = tuple[str, ...]  # names of folders, from the root down


@dataclass(frozen=True, slots=True)
class FolderImage:
    """One image file, its split folder (None where the data has none) and mask file (or None).

    The uid of the record is the file stem.
    """

    record: Record
    split: str | None
    mask: str | None


@dataclass(frozen=True, slots=True)
class _Found:
    """An image in a class folder, before its mask is known."""

    item: FolderImage
    parts: _Parts  # folders of the file
    above: _Parts  # those above its class folder
    address: _Parts  # what the folders mean, for masks


def find_images(root: Path, *, one_class: bool = False) -> tuple[list[FolderImage], list[str]]:
    """All images below ``root``, ordered by path, and warnings about the layout.

    What the names of folders mean is in `artifactnet.data.folder_names`. Folders of one meaning
    (``real`` and ``Real``, ``train`` and ``training``) are merged, with a warning.

    Args:
        root: the folder.
        one_class: allow splits with images of one class only, for an evaluation.

    Raises:
        ArtifactNetError: the folder is missing, unreadable, empty or of an unknown layout; a split
            has images of one class only; a mask fits two images, or an image has two; a picture
            in a class folder is the mask of another.
    """
    if not root.is_dir():
        raise ArtifactNetError(f"data.root={root}: no such folder; {LAYOUTS}")
    found: list[_Found] = []
    masks: list[tuple[_Parts, str]] = []
    others: list[tuple[_Parts, str]] = []  # in no class folder
    skipped = Skipped()
    for name, path in list_images(root, skipped, once=False):
        parts = tuple(name.split(os.sep)[:-1])
        if any(folder_names.mask_scope(part) is not None for part in parts):
            masks.append((parts, path))
        elif (label_at := _class_folder(root, parts)) is None:
            others.append((parts, path))
        else:
            found.append(_describe(root, parts, path, *label_at))
    found.sort(key=lambda one: (one.above, one.item.record.label))
    found = _once(found, skipped)
    _check_splits(root, found, others)
    outside = _in_no_class(others)
    if not found:
        only = f" but {len(masks)} in folders of masks" if masks else ""
        raise ArtifactNetError(f"data.root={root}: no images found{only}{outside}; {LAYOUTS}")
    if not one_class:
        _check_classes(root, found, outside)
    warnings = [*_merged(root, found, masks), *skipped.describe(root)]
    warnings += [f"{root}{outside}"] if outside else []
    mask_of, unused = _match_masks(found, masks)
    makers, alike = _merge_makers(one.item.record.generator for one in found)
    warnings += [f"{root}: {text}" for text in alike]
    items = []
    for one in found:
        mask = mask_of.get(one.item.record.location)
        record = replace(one.item.record, generator=makers[one.item.record.generator])
        if mask is not None:
            record = replace(record, annotation=Annotation.MASK)
        items.append(FolderImage(record, one.item.split, mask))
    _refuse_mask_pictures(root, items)
    return items, warnings + unused


def _once(found: list[_Found], skipped: Skipped) -> list[_Found]:
    """Images without those that links repeat in one class of one split.

    What links put into two classes or splits stays, and is found by its content.
    """
    kept: dict[tuple[str, int, str | None], _Found] = {}
    paths = [one.item.record.location for one in found]
    for one, path, real in zip(found, paths, real_paths(paths), strict=True):
        key = real, one.item.record.label, one.item.split
        if kept.setdefault(key, one) is not one:
            skipped.add(LISTED_ALREADY, path)
    return list(kept.values())


def _class_folder(root: Path, parts: _Parts) -> tuple[int, int] | None:
    """Label of the class folder on a path, and its position; None if there is none."""
    # "synthetic/real" are real images: where a name says real or fake, others name no class
    for labels in (folder_names.explicit_label_of, folder_names.label_of):
        places = [(label, k) for k, part in enumerate(parts) if (label := labels(part)) is not None]
        if len({label for label, _ in places}) > 1:
            raise ArtifactNetError(
                f"{root.joinpath(*parts)}: lies in a folder of real images "
                f"and in one of fakes; rename one of them. {LAYOUTS}"
            )
        if places:
            return places[0]
    return None


def _describe(root: Path, parts: _Parts, path: str, label: int, position: int) -> _Found:
    """What the folders of an image say about it."""
    above, below = parts[:position], parts[position + 1 :]
    splits = {split for part in above if (split := folder_names.split_of(part)) is not None}
    if len(splits) > 1:
        raise ArtifactNetError(
            f"{root.joinpath(*above)}: lies in more than one split folder; {LAYOUTS}"
        )
    for part in below:
        if folder_names.split_of(part) is not None:
            raise ArtifactNetError(
                f"{os.path.dirname(path)}: split folders belong above {parts[position]}/, and "
                f"{part!r} is the name of one; {LAYOUTS}"
            )
    stem = os.path.splitext(os.path.basename(path))[0]
    maker, annotation = "real", Annotation.CLEAN
    if label == 1:
        explicit = folder_names.explicit_label_of(parts[position]) is not None
        of_class = folder_names.explicit_label_of if explicit else folder_names.label_of
        makers = (part for part in (*above, *below) if of_class(part) is None)
        maker, annotation = next(filter(_names_generator, makers), "fake"), Annotation.NONE
    record = Record(stem, label, maker, annotation, path, path=path)
    item = FolderImage(record, next(iter(splits), None), None)
    return _Found(item, parts, above, _address(parts))


def _names_generator(part: str) -> bool:
    return folder_names.split_of(part) is None and not folder_names.is_container(part)


def _address(parts: _Parts) -> _Parts:
    """What folders mean: ``("training", "Fake", "images", "sdxl")`` -> train, fake, sdxl.

    Of a mask folder only what its name says beside that remains.
    """
    address: list[str] = []
    for part in parts:
        scope = folder_names.mask_scope(part)
        if scope is None and not folder_names.is_container(part):
            meaning = folder_names.meaning_of(part)
            scope = (folder_names.normalized(part),) if meaning is None else (meaning,)
        # "fake/fake_masks" and "train/train" mean no more than one of them
        address += [name for name in scope or () if name not in address]
    return tuple(address)


def _check_splits(
    root: Path, found: Sequence[_Found], others: Sequence[tuple[_Parts, str]]
) -> None:
    """Refuse images outside of the split folders, and folders that only look like splits."""
    split_at: dict[_Parts, str] = {}  # folder that holds split folders -> one of them
    for one in found:
        for k, part in enumerate(one.above):
            if folder_names.split_of(part) is not None:
                split_at.setdefault(one.above[:k], part)
    outside = [one.above for one in found if one.item.split is None]
    for parts in outside if split_at else ():
        for k in range(len(parts)):
            if parts[:k] in split_at:
                raise ArtifactNetError(_beside(root, parts[: k + 1], split_at[parts[:k]]))
        if parts in split_at:
            raise ArtifactNetError(
                f"{root.joinpath(*parts)}: holds class folders and split folders; {LAYOUTS}"
            )
        raise ArtifactNetError(
            f"data.root={root}: some images lie below train/val/test and some do not, e.g. those "
            f"in {root.joinpath(*parts)}; {LAYOUTS}"
        )
    for parts, _ in others:
        for k, part in enumerate(parts):
            if parts[:k] in split_at and folder_names.split_like(part, typos=True):
                raise ArtifactNetError(_beside(root, parts[: k + 1], split_at[parts[:k]]))
    similar: dict[_Parts, dict[str, str]] = defaultdict(dict)
    for parts in outside:
        for k, part in enumerate(parts):
            resembled = folder_names.split_like(part)
            if resembled is not None:
                similar[parts[:k]][resembled] = part
    for parts, names in similar.items():
        if len(names) > 1:
            raise ArtifactNetError(
                f"{root.joinpath(*parts)}: {' and '.join(sorted(names.values()))} look like split "
                f"folders and are none; rename them ({folder_names.SPLIT_NAMES}); {LAYOUTS}"
            )


def _beside(root: Path, parts: _Parts, split: str) -> str:
    return (
        f"{root.joinpath(*parts)}: lies beside the split folder {split}/ and is none (some images "
        "lie below train/val/test and some do not); rename it, or move it elsewhere. "
        f"{folder_names.SPLIT_NAMES}; {LAYOUTS}"
    )


def _check_classes(root: Path, found: Sequence[_Found], outside: str) -> None:
    by_split: dict[str | None, set[int]] = defaultdict(set)
    for one in found:
        by_split[one.item.split].add(one.item.record.label)
    for name, labels in by_split.items():
        if len(labels) == 1:
            place = root if name is None else root / name
            missing = "real" if 1 in labels else "fake"
            raise ArtifactNetError(f"{place}: holds no {missing} images{outside}; {LAYOUTS}")


def _in_no_class(others: Sequence[tuple[_Parts, str]]) -> str:
    if not others:
        return ""
    examples = _examples([path for _, path in others])
    return f": {len(others)} images lie in no class folder and are not used, e.g. {examples}"


def _merged(root: Path, found: Sequence[_Found], masks: Sequence[tuple[_Parts, str]]) -> list[str]:
    """Warnings about folders of one meaning beside each other.

    Raises:
        ArtifactNetError: two names of a class of which only one says real or fake; the other may
            mean something else.
    """
    names: dict[tuple[_Parts, str], set[str]] = defaultdict(set)
    for one in found:
        k = len(one.above)
        names[one.above, CLASSES[one.item.record.label]].add(one.parts[k])
        for k, part in enumerate(one.above):
            split = folder_names.split_of(part)
            if split is not None:
                names[one.above[:k], split].add(part)
    for parts, _ in masks:
        for k, part in enumerate(parts):
            scope = folder_names.mask_scope(part)
            if scope is not None:
                names[parts[:k], " ".join((*scope, "masks"))].add(part)
    warnings = []
    for (parts, meaning), same in sorted(names.items()):
        explicit = [folder_names.explicit_label_of(name) is not None for name in same]
        if len(set(explicit)) > 1:
            raise ArtifactNetError(
                f"{root.joinpath(*parts)}: {' and '.join(sorted(same))} both name {meaning} "
                "images; put the images into one of them, or rename the other"
            )
        if len(same) > 1:
            listed = " and ".join(f"{name}/" for name in sorted(same))
            warnings.append(f"{root.joinpath(*parts)}: {listed} all mean {meaning}: merged")
    return warnings


def _merge_makers(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """One spelling for generators that differ in nothing else, and warnings about them."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in set(names):
        spellings[folder_names.normalized(name)].add(name)
    warnings = [
        f"{' and '.join(sorted(same))} are one generator, {min(same)}: merged"
        for _, same in sorted(spellings.items())
        if len(same) > 1
    ]
    return {name: min(same) for same in spellings.values() for name in same}, warnings


def _match_masks(
    found: Sequence[_Found], masks: Sequence[tuple[_Parts, str]]
) -> tuple[dict[str, str], list[str]]:
    """Mask of each image that has one (path -> path), and warnings about other masks.

    A mask belongs to the fake of its stem whose folders include, in order, what the mask's own
    folders mean; if there are several, to the one with the fewest folders beyond those.

    Raises:
        ArtifactNetError: a mask fits images of several folders, or an image has two masks.
    """
    by_stem: dict[str, list[_Found]] = defaultdict(list)
    for one in found:
        by_stem[one.item.record.uid].append(one)
    result: dict[str, str] = {}
    orphans: list[str] = []
    of_real: list[str] = []
    for parts, path in masks:
        address = _address(parts)
        stem = os.path.splitext(os.path.basename(path))[0]
        images = by_stem.get(stem) or by_stem.get(folder_names.stem_of_mask(stem), [])
        images = [one for one in images if _includes(one.address, address)]
        fakes = [one for one in images if one.item.record.label == 1]
        if not fakes:
            (of_real if images else orphans).append(path)
            continue
        least = min(len(one.address) for one in fakes)
        nearest = [one for one in fakes if len(one.address) == least]
        first = nearest[0].item.record.location
        for one in nearest:
            location = one.item.record.location
            if one.parts != nearest[0].parts:
                raise ArtifactNetError(
                    f"{path}: this mask fits {first} as well as {location}; lay the masks out in "
                    "folders as the images are, say masks/GENERATOR/NAME.png"
                )
            if result.setdefault(location, path) != path:
                raise ArtifactNetError(
                    f"{location}: has two masks, {result[location]} and {path}; keep one of them"
                )
    warnings = []
    if orphans:
        what = "masks have no fake image of the same stem in folders that match theirs"
        warnings.append(f"{len(orphans)} {what}, e.g. {_examples(orphans)}")
    if of_real:
        what = "masks belong to real images, which have no artifacts, and are not used"
        warnings.append(f"{len(of_real)} {what}, e.g. {_examples(of_real)}")
    return result, warnings


def _includes(folders: _Parts, wanted: _Parts) -> bool:
    """Whether ``wanted`` are among ``folders``, in this order."""
    rest = iter(folders)
    return all(part in rest for part in wanted)


def _refuse_mask_pictures(root: Path, items: Sequence[FolderImage]) -> None:
    """Masks that lie among the images, under whatever folder name, must not become images."""
    pairs = find_mask_pictures([item.record.location for item in items])
    if pairs:
        examples = _examples([f"{mask} (of {image})" for mask, image in pairs])
        raise ArtifactNetError(
            f"data.root={root}: {len(pairs)} pictures in class folders hold two levels only and "
            f"have the name of another image, so they are masks: {examples}; masks belong into a "
            "folder called masks/ in, beside or above the class folder. An image of two levels "
            "needs a name of its own"
        )


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


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

    ``maps`` are relative paths of files in it that are maps of images, not images; ``skipped`` says
    which other files are no images.

    Raises:
        ArtifactNetError: there is no such folder, it cannot be listed, or holds no image.
    """

    def __init__(self, folder: Path, maps: Collection[str] = ()) -> None:
        if not folder.is_dir():
            raise ArtifactNetError(f"{folder}: no such folder of images")
        self.folder = folder
        others = {os.path.normpath(name) for name in maps}
        self.skipped = Skipped()
        listed = list_images(folder, self.skipped)
        self._exact = {name: path for name, path in listed if name not in others}
        if not self._exact:
            held = f"; it holds {'; '.join(self.skipped.lines())}" if self.skipped.counts else ""
            raise ArtifactNetError(f"{folder}: holds no images{held}")
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
