"""Images that manifests list: the one format into which all others can be converted and mixed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from artifactnet.config import DataConfig
from artifactnet.data import splits as splitting
from artifactnet.data.heatmaps import read_stored_map, resize_heatmap
from artifactnet.data.image_folders import SPLITS
from artifactnet.data.images import decode_image
from artifactnet.data.manifest_format import ManifestLine, assign_splits, read_manifest, record_of
from artifactnet.data.sources.base import Source, Splits
from artifactnet.taxonomy import UNCATEGORIZED_BIT
from artifactnet.types import Annotation, ArtifactNetError, Float32Array, Record, Sample, UInt8Array

_ROUNDING = 1e-4  # of scores that two data sets took from one annotator
_Value = TypeVar("_Value")


def merge_lines(
    lines: Sequence[ManifestLine], generators: Container[str], *, skip: bool = False
) -> tuple[list[ManifestLine], list[str]]:
    """Put the lines of each image together, so that it is seen once with all that is known of it.

    Lines with a wanted generator come first, then the order given. What one line lacks (text,
    score, heatmap, mask, categories) is taken from the next that has it; an image where any line
    marks artifacts has some.

    Args:
        lines: those of one image have the same label.
        generators: that are wanted; images of which no line names one are left out.
        skip: a heatmap or mask whose file is not there gives way to one that is.

    Returns:
        One line per image, where its first one was, and a warning if lines contradict each other.
    """
    groups: dict[str, list[ManifestLine]] = {}
    for line in lines:
        groups.setdefault(line.place, []).append(line)
    joined, torn = [], []
    for group in groups.values():
        group.sort(key=lambda line: line.generator not in generators)
        if group[0].generator in generators:
            joined.append(_joined(group, skip))
            torn += [f"{group[0].image} ({', '.join(named)})" for named in [_apart(group)] if named]
    if not torn:
        return joined, []
    return joined, [
        f"{len(torn)} images have lines that contradict each other, e.g. {torn[0]}: the first that "
        "says anything is believed, artifacts before none"
    ]


def _joined(lines: Sequence[ManifestLine], skip: bool) -> ManifestLine:
    """One line of all that are about an image."""
    if len(lines) == 1:
        return lines[0]
    return replace(
        lines[0],
        annotation=max(line.annotation for line in lines),
        heatmap=_first_file([line.heatmap for line in lines], skip),
        mask=_first_file([line.mask for line in lines], skip),
        score=_first([line.score for line in lines]),
        categories=_first([line.categories or None for line in lines]) or 0,
        text=_first([line.text for line in lines]),
        where=", ".join(line.where for line in lines),
    )


def _first(values: Sequence[_Value | None]) -> _Value | None:
    return next((value for value in values if value is not None), None)


def _first_file(paths: Sequence[str | None], skip: bool) -> str | None:
    there = [path for path in paths if path is not None and os.path.isfile(path)] if skip else []
    return _first(there or paths)


def _apart(lines: Sequence[ManifestLine]) -> list[str]:
    """What the lines about one image cannot all be right in."""
    said: dict[str, set[Any]] = {
        "annotation": {line.annotation for line in lines} - {Annotation.NONE},
        "heatmap": {os.path.abspath(line.heatmap) for line in lines if line.heatmap is not None},
        "mask": {os.path.abspath(line.mask) for line in lines if line.mask is not None},
        "categories": {line.categories for line in lines} - {0},
        "text": {line.text for line in lines} - {None},
        "generator": {line.generator for line in lines},
    }
    found = [what for what, values in said.items() if len(values) > 1]
    scores = [line.score for line in lines if line.score is not None]
    if max(scores, default=0) - min(scores, default=0) > _ROUNDING:
        found.append("score")
    return found


SUFFIX = ".jsonl"
_MARKED = 0.5  # where a heatmap is at least this, its mask says artifact


class ManifestSource:
    """Images of one split.

    Attributes:
        texts: what somebody wrote about each image; None where nobody did.
        lines: one per image.
    """

    def __init__(self, lines: list[ManifestLine], warnings: tuple[str, ...] = ()) -> None:
        self.records: list[Record] = [record_of(line) for line in lines]
        self.warnings = warnings
        self.texts: list[str | None] = [line.text for line in lines]
        self.lines = lines

    def load(self, index: int) -> Sample:
        """Decode image ``index``, its heatmap and its mask.

        A heatmap of another size is resized to the image (`artifactnet.data.heatmaps.resize_heatmap`).
        Without a mask of its own, an image's mask is bit 0 where its heatmap is at least 0.5.

        Raises:
            ArtifactNetError: a file cannot be used, the heatmap has another aspect ratio than the
                image, or the mask another size; the message names the line and the file.
        """
        line = self.lines[index]
        image = decode_image(line.image, f"{line.where}: {line.image}")
        size = image.shape[0], image.shape[1]
        heatmap: Float32Array | None = None
        mask: UInt8Array | None = None
        if line.heatmap is not None:
            name = f"{line.where}: heatmap {line.heatmap}"
            heatmap = resize_heatmap(read_stored_map(line.heatmap, name), size, name)
            mask = (heatmap >= _MARKED).astype(np.uint8) * np.uint8(UNCATEGORIZED_BIT)
        if line.mask is not None:
            name = f"{line.where}: mask {line.mask}"
            mask = read_stored_map(line.mask, name)
            if mask.shape != size:
                raise ArtifactNetError(
                    f"{name}: it is {mask.shape[1]}x{mask.shape[0]}, its image "
                    f"{size[1]}x{size[0]}; they must agree"
                )
        return Sample(self.records[index], image, mask, heatmap, line.score, text=line.text)


def build_manifest_splits(config: DataConfig, seed: int) -> Splits:
    """Read the manifest ``config.root``, or all ``*.jsonl`` files of that folder, into splits.

    A uid that any line puts into a split is there with all its images. Other uids are drawn: a
    share ``config.val_fraction`` becomes the validation split, another such share the test split.
    Where that leaves no validation split, such a share of the training uids becomes one.
    Uids that share a file, or have byte-identical ones, are kept together like one uid. An image
    of several lines is there once, with what all of them say, see `merge_lines`.

    Args:
        config: ``root``, ``generators``, ``val_fraction``, ``limit`` and ``on_error`` are used.
        seed: of the draws.

    Raises:
        ArtifactNetError: no manifest, a malformed line, a uid or an image in two splits, an image
            with two labels; with ``on_error=raise`` also a file that is not there, or copies of
            one image in two splits.
    """
    if config.root is None:
        raise ArtifactNetError("data.root is not set; name a manifest, or a folder of them")
    root = Path(config.root)
    lines = [line for path in _manifests(root) for line in read_manifest(path)]
    if not lines:
        raise ArtifactNetError(f"data.root={root}: the manifest lists no image")
    warnings = _repeated(lines)
    if config.on_error == "raise":  # otherwise the image is met, and skipped, when it is loaded
        _check_files(lines)
    keep = splitting.wanted_generators(map(record_of, lines), config.generators, root)
    every = lines
    lines, torn = merge_lines(every, keep, skip=config.on_error == "skip")
    home = assign_splits(lines, every, config.val_fraction, seed, skip=config.on_error == "skip")
    result: dict[str, Source] = {}
    for split in SPLITS:
        chosen = [line for line in lines if home[line.uid] == split]
        kept = splitting.limit_uids([record_of(line) for line in chosen], config.limit, seed)
        if kept:
            result[split] = ManifestSource([chosen[k] for k in kept], (*warnings, *torn))
    return result


def _manifests(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ArtifactNetError(f"data.root={root}: no such file or folder")
    found = sorted(path for path in root.glob(f"*{SUFFIX}") if not path.name.startswith("."))
    if not found:
        raise ArtifactNetError(
            f"data.root={root}: holds no *{SUFFIX} file; `artifactnet convert` makes one"
        )
    return found


def _repeated(lines: list[ManifestLine]) -> list[str]:
    """Warning about images listed more than once; an error if with two labels."""
    seen: dict[str, ManifestLine] = {}
    again: Counter[str] = Counter()
    for line in lines:
        place = line.place
        first = seen.setdefault(place, line)
        again[place] += 1
        if first.label != line.label:
            raise ArtifactNetError(
                f"{line.where}: {line.image} has label {line.label} here and {first.label} in "
                f"{first.where}; correct one of them"
            )
    several = [place for place, count in again.items() if count > 1]
    if not several:
        return []
    return [
        f"{len(several)} images are listed more than once, e.g. {several[0]}; each is used once, "
        "with what all its lines say"
    ]


def _check_files(lines: list[ManifestLine]) -> None:
    for line in lines:
        for kind in ("image", "heatmap", "mask"):
            path = getattr(line, kind)
            if path is not None and not os.path.isfile(path):
                raise ArtifactNetError(
                    f"{line.where}: {kind} {path}: no such file; correct the path, or leave such "
                    "images out with data.on_error=skip"
                )
