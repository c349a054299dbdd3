"""Images listed in manifests: the format into which all others can be converted and mixed.

`merge_lines` gives one line per image, `assign_splits` one split per uid, and `ManifestSource`
decodes what the lines name.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from artifactnet.config import DataConfig
from artifactnet.data import splits as splitting
from artifactnet.data.duplicates import find_identical_files
from artifactnet.data.folder_names import SPLITS
from artifactnet.data.heatmaps import read_stored_map, resize_heatmap
from artifactnet.data.images import decode_image
from artifactnet.data.manifest_format import ManifestLine, named_splits, read_manifest, record_of
from artifactnet.data.regions import clip_regions, draw_corners
from artifactnet.data.sources.base import Source, Splits
from artifactnet.taxonomy import UNCATEGORIZED_BIT
from artifactnet.types import Annotation, ArtifactNetError, Float32Array, Record, Sample, UInt8Array

SUFFIX = ".jsonl"
_ARTIFACT = 0.5  # a heatmap of at least this is artifact, where there is no mask
_ROUNDING = 1e-4  # of scores that two data sets took from one annotator
_Value = TypeVar("_Value")


class ManifestSource:
    """Images of one split; ``texts`` explain them in words, or are None."""

    def __init__(
        self,
        lines: list[ManifestLine],
        warnings: tuple[str, ...] = (),
        levels: int | None = None,
    ) -> None:
        self.records: list[Record] = [record_of(line) for line in lines]
        self.warnings = warnings
        self.texts: list[str | None] = [line.text for line in lines]
        self.lines = lines
        self._levels = levels

    def load(self, index: int) -> Sample:
        """See `Source.load`.

        A heatmap is resized to its image (`artifactnet.data.heatmaps.resize_heatmap`). Without a
        mask of its own, an image's mask is bit 0 where its heatmap is at least 0.5, and without
        that, bit 0 in its regions (`artifactnet.data.regions.draw_corners`).
        """
        line = self.lines[index]
        image = decode_image(line.image, f"{line.where}: {line.image}", self._levels)
        size = image.shape[0], image.shape[1]
        heatmap: Float32Array | None = None
        mask: UInt8Array | None = None
        if line.heatmap is not None:
            name = f"{line.where}: heatmap {line.heatmap}"
            heatmap = resize_heatmap(read_stored_map(line.heatmap, name), size, name)
            mask = (heatmap >= _ARTIFACT).astype(np.uint8) * np.uint8(UNCATEGORIZED_BIT)
        if line.mask is not None:
            name = f"{line.where}: mask {line.mask}"
            mask = read_stored_map(line.mask, name)
            if mask.shape != size:
                raise ArtifactNetError(
                    f"{name}: it is {mask.shape[1]}x{mask.shape[0]}, its image "
                    f"{size[1]}x{size[0]}; they must agree"
                )
        regions = line.regions
        if regions is not None:
            regions = clip_regions(regions, size, f"{line.where}: {line.image}")
            if regions and mask is None:
                mask = draw_corners([region.bbox for region in regions], size)
        return Sample(
            self.records[index], image, mask, heatmap, line.score,
            text=line.text, regions=regions, tags=line.tags,
        )  # fmt: skip


def build_manifest_splits(config: DataConfig, seed: int) -> Splits:
    """Read the manifest ``config.root``, or all ``*.jsonl`` files of that folder, into splits.

    See `merge_lines` for images that several lines describe, and `assign_splits` for the splits.

    Raises:
        ArtifactNetError: no manifest, a malformed line, a uid or an image in two splits, an image
            with two labels; with ``on_error=raise`` also a missing file, or copies of one image in
            two splits.
    """
    if config.root is None:
        raise ArtifactNetError("data.root is not set; name a manifest, or a folder of them")
    root = Path(config.root)
    skip = config.on_error == "skip"
    lines = [line for path in _list_manifests(root) for line in read_manifest(path)]
    if not lines:
        raise ArtifactNetError(f"data.root={root}: the manifest lists no image")
    warnings = _check_repeated(lines)
    if not skip:  # otherwise a missing file is skipped when it is loaded
        for line in lines:
            for kind in ("image", "heatmap", "mask"):
                path = getattr(line, kind)
                if path is not None and not os.path.isfile(path):
                    raise ArtifactNetError(
                        f"{line.where}: {kind} {path}: no such file; correct the path, or leave "
                        "such images out with data.on_error=skip"
                    )
    generators = splitting.select_generators(map(record_of, lines), config.generators, root)
    merged, contradictions = merge_lines(lines, generators, skip=skip)
    split_of = assign_splits(merged, lines, config.val_fraction, seed, skip=skip)
    result: dict[str, Source] = {}
    for split in SPLITS:
        chosen = [line for line in merged if split_of[line.uid] == split]
        kept = splitting.limit_uids([record_of(line) for line in chosen], config.limit, seed)
        if kept:
            notes = (*warnings, *contradictions)
            result[split] = ManifestSource([chosen[k] for k in kept], notes, config.levels)
    return result


def _list_manifests(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ArtifactNetError(f"data.root={root}: no such file or folder")
    paths = sorted(path for path in root.glob(f"*{SUFFIX}") if not path.name.startswith("."))
    if not paths:
        raise ArtifactNetError(
            f"data.root={root}: holds no *{SUFFIX} file; `artifactnet convert` makes one"
        )
    return paths


def _check_repeated(lines: list[ManifestLine]) -> list[str]:
    """Warning about images listed more than once; an error if with two labels."""
    first: dict[str, ManifestLine] = {}
    repeated: set[str] = set()
    for line in lines:
        other = first.setdefault(line.image_path, line)
        if other is not line:
            repeated.add(line.image_path)
        if other.label != line.label:
            raise ArtifactNetError(
                f"{line.where}: {line.image} has label {line.label} here and {other.label} in "
                f"{other.where}; correct one of them"
            )
    if not repeated:
        return []
    example = next(path for path in first if path in repeated)
    return [
        f"{len(repeated)} images are listed more than once, e.g. {example}; each is used once, "
        "with what all its lines say"
    ]


def merge_lines(
    lines: Sequence[ManifestLine], generators: Container[str], *, skip: bool = False
) -> tuple[list[ManifestLine], list[str]]:
    """Merge the lines of each image, which have one label, and warn of contradicting lines.

    Lines of a wanted generator come first, then the order given; images of which no line has one
    are left out. What one line lacks (text, score, heatmap, mask, categories, regions, tags) is
    taken from the next that has it; an image where any line marks artifacts has some, so an empty
    list of regions or tags gives way to one that is not. ``skip`` prefers heatmaps and masks whose
    file exists.
    """
    groups: dict[str, list[ManifestLine]] = {}
    for line in lines:
        groups.setdefault(line.image_path, []).append(line)
    merged, contradictions = [], []
    for group in groups.values():
        group.sort(key=lambda line: line.generator not in generators)
        if group[0].generator in generators:
            merged.append(group[0] if len(group) == 1 else _merge_group(group, skip))
            fields = _contradictions(group)
            if fields:
                contradictions.append(f"{group[0].image} ({', '.join(fields)})")
    if not contradictions:
        return merged, []
    return merged, [
        f"{len(contradictions)} images have lines that contradict each other, e.g. "
        f"{contradictions[0]}: the first that has a value counts, artifacts before none"
    ]


def _merge_group(lines: Sequence[ManifestLine], skip: bool) -> ManifestLine:
    def first(values: Sequence[_Value | None]) -> _Value | None:
        return next((value for value in values if value is not None), None)

    def first_file(paths: Sequence[str | None]) -> str | None:
        existing = [path for path in paths if skip and path is not None and os.path.isfile(path)]
        return first(existing or paths)

    def first_filled(lists: Sequence[tuple[_Value, ...] | None]) -> tuple[_Value, ...] | None:
        return first([values or None for values in lists]) or first(lists)

    return replace(
        lines[0],
        annotation=max(line.annotation for line in lines),
        heatmap=first_file([line.heatmap for line in lines]),
        mask=first_file([line.mask for line in lines]),
        score=first([line.score for line in lines]),
        categories=first([line.categories or None for line in lines]) or 0,
        text=first([line.text for line in lines]),
        regions=first_filled([line.regions for line in lines]),
        tags=first_filled([line.tags for line in lines]),
        where=", ".join(line.where for line in lines),
    )


def _contradictions(lines: Sequence[ManifestLine]) -> list[str]:
    """Fields in which the lines of one image cannot all be right."""
    values: dict[str, set[Any]] = {
        "annotation": {line.annotation for line in lines} - {Annotation.NONE},
        "heatmap": {os.path.abspath(line.heatmap) for line in lines if line.heatmap is not None},
        "mask": {os.path.abspath(line.mask) for line in lines if line.mask is not None},
        "categories": {line.categories for line in lines} - {0},
        "text": {line.text for line in lines} - {None},
        # in any order
        "regions": {frozenset(line.regions) for line in lines if line.regions is not None},
        "tags": {frozenset(line.tags) for line in lines if line.tags is not None},
        "generator": {line.generator for line in lines},
    }
    fields = [name for name, distinct in values.items() if len(distinct) > 1]
    scores = [line.score for line in lines if line.score is not None]
    if max(scores, default=0) - min(scores, default=0) > _ROUNDING:
        fields.append("score")
    return fields


def assign_splits(
    lines: list[ManifestLine],
    all_lines: list[ManifestLine],
    fraction: float,
    seed: int,
    *,
    skip: bool = False,
) -> dict[str, str]:
    """Choose the split of every uid of ``lines``: ``train``, ``val`` or ``test``.

    A uid that any line puts into a split is there with all its images. Other uids are drawn: a
    share ``fraction`` for validation, another such share for testing. Where that leaves no
    validation split, such a share of the training uids becomes one. Uids that share a file, or have
    byte-identical ones, are kept together like one uid.

    Args:
        lines: of the images that are used.
        all_lines: of all manifests: a photograph stays where a fake of it is named, and beside what
            it is linked to, whatever generators are left out.
        fraction: share of the uids that a drawn split gets.
        seed: of the draws.
        skip: copies of one image that lines put into two splits stay where they are named, for
            `artifactnet.data.duplicates` to leave the earlier split's out; otherwise an error.

    Raises:
        ArtifactNetError: lines put a uid, or an image, into two splits.
    """
    named = named_splits(all_lines)
    owners: dict[str, set[str]] = defaultdict(set)  # path -> uids
    for line in all_lines:
        owners[line.image_path].add(line.uid)
    paths = list(owners)
    copies = [set.union(*(owners[paths[k]] for k in same)) for same in find_identical_files(paths)]
    leaders = splitting.link_uids((line.uid for line in all_lines), (*owners.values(), *copies))
    chosen: dict[str, tuple[str, ManifestLine]] = {}  # leader -> split of its group, naming line
    for uid, (split, line) in named.items():
        other, first = chosen.setdefault(leaders[uid], (split, line))
        if other != split and not skip:
            raise ArtifactNetError(
                f"{line.where}: uid {uid!r} ({line.image}) is in {split} here, and {first.uid!r} "
                f"({first.image}), linked to it by a common image, in {other} in {first.where}; "
                "put both into one split, or leave copies out with data.on_error=skip"
            )
        if SPLITS.index(split) > SPLITS.index(other):
            chosen[leaders[uid]] = split, line
    split_of = {uid: chosen[leader][0] for uid, leader in leaders.items() if leader in chosen}
    split_of |= {uid: split for uid, (split, _) in named.items()}
    used = {line.uid for line in lines}
    split_of = {uid: split for uid, split in split_of.items() if uid in used}

    def draw(chosen: list[ManifestLine], shares: dict[str, float]) -> None:
        records = [replace(record_of(line), uid=leaders[line.uid]) for line in chosen]
        drawn = splitting.draw_splits(records, shares, seed)
        split_of.update({line.uid: drawn[leaders[line.uid]] for line in chosen})

    shares = {"train": 1 - 2 * fraction, "val": fraction, "test": fraction}
    draw([line for line in lines if line.uid not in split_of], shares)
    if "train" in split_of.values() and "val" not in split_of.values():
        train = [line for line in lines if split_of[line.uid] == "train"]
        draw(train, {"train": 1 - fraction, "val": fraction})
    return split_of
