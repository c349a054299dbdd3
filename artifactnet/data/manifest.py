"""Images that manifests list: the one format into which all others can be converted and mixed."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from artifactnet.config import DataConfig
from artifactnet.data import splits as splitting
from artifactnet.data.gray import heatmap_at, read_stored
from artifactnet.data.images import decode
from artifactnet.data.layout import SPLITS
from artifactnet.data.manifest_lines import Line, read
from artifactnet.data.manifest_splits import assign, record_of
from artifactnet.data.merging import merge
from artifactnet.data.source import Source, Splits
from artifactnet.taxonomy import UNCATEGORIZED_BIT
from artifactnet.types import ArtifactNetError, Float32Array, Record, Sample, UInt8Array

SUFFIX = ".jsonl"
_MARKED = 0.5  # where a heatmap is at least this, its mask says artifact


class ManifestSource:
    """Images of one split.

    Attributes:
        texts: what somebody wrote about each image; None where nobody did.
        lines: one per image.
    """

    def __init__(self, lines: list[Line], warnings: tuple[str, ...] = ()) -> None:
        self.records: list[Record] = [record_of(line) for line in lines]
        self.warnings = warnings
        self.texts: list[str | None] = [line.text for line in lines]
        self.lines = lines

    def load(self, index: int) -> Sample:
        """Decode image ``index``, its heatmap and its mask.

        A heatmap of another size is resized to the image (`artifactnet.data.gray.heatmap_at`).
        Without a mask of its own, an image's mask is bit 0 where its heatmap is at least 0.5.

        Raises:
            ArtifactNetError: a file cannot be used, the heatmap has another aspect ratio than the
                image, or the mask another size; the message names the line and the file.
        """
        line = self.lines[index]
        image = decode(line.image, f"{line.where}: {line.image}")
        size = image.shape[0], image.shape[1]
        heatmap: Float32Array | None = None
        mask: UInt8Array | None = None
        if line.heatmap is not None:
            name = f"{line.where}: heatmap {line.heatmap}"
            heatmap = heatmap_at(read_stored(line.heatmap, name), size, name)
            mask = (heatmap >= _MARKED).astype(np.uint8) * np.uint8(UNCATEGORIZED_BIT)
        if line.mask is not None:
            name = f"{line.where}: mask {line.mask}"
            mask = read_stored(line.mask, name)
            if mask.shape != size:
                raise ArtifactNetError(
                    f"{name}: it is {mask.shape[1]}x{mask.shape[0]}, its image "
                    f"{size[1]}x{size[0]}; they must agree"
                )
        return Sample(self.records[index], image, mask, heatmap, line.score, text=line.text)


def build(config: DataConfig, seed: int) -> Splits:
    """Read the manifest ``config.root``, or all ``*.jsonl`` files of that folder, into splits.

    A uid that any line puts into a split is there with all its images. Other uids are drawn: a
    share ``config.val_fraction`` becomes the validation split, another such share the test split.
    Where that leaves no validation split, such a share of the training uids becomes one.
    Uids that share a file, or have byte-identical ones, are kept together like one uid. An image
    of several lines is there once, with what all of them say, see `merge`.

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
    lines = [line for path in _manifests(root) for line in read(path)]
    if not lines:
        raise ArtifactNetError(f"data.root={root}: the manifest lists no image")
    warnings = _repeated(lines)
    if config.on_error == "raise":  # otherwise the image is met, and skipped, when it is loaded
        _check_files(lines)
    keep = splitting.wanted_generators(map(record_of, lines), config.generators, root)
    every = lines
    lines, torn = merge(every, keep, skip=config.on_error == "skip")
    home = assign(lines, every, config.val_fraction, seed, skip=config.on_error == "skip")
    result: dict[str, Source] = {}
    for split in SPLITS:
        chosen = [line for line in lines if home[line.uid] == split]
        kept = splitting.limit([record_of(line) for line in chosen], config.limit, seed)
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


def _repeated(lines: list[Line]) -> list[str]:
    """Warning about images listed more than once; an error if with two labels."""
    seen: dict[str, Line] = {}
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


def _check_files(lines: list[Line]) -> None:
    for line in lines:
        for kind in ("image", "heatmap", "mask"):
            path = getattr(line, kind)
            if path is not None and not os.path.isfile(path):
                raise ArtifactNetError(
                    f"{line.where}: {kind} {path}: no such file; correct the path, or leave such "
                    "images out with data.on_error=skip"
                )
