"""Controlled edits of a user's own photographs, written as an X-AIGD data set."""

from __future__ import annotations

import csv
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np

from artifactnet.data.image_files import FileWalk, Skipped
from artifactnet.data.images import decode_image
from artifactnet.data.shards import EditedPair, write_shard
from artifactnet.data.splits import split_uids
from artifactnet.data.synthetic import edits
from artifactnet.taxonomy import Category
from artifactnet.types import ArtifactNetError, UInt8Array

_SMALLEST_CROP = 0.5  # of the photograph's side


@dataclass(slots=True)
class Synthesis:
    """What was written.

    Attributes:
        out: the folder of the data set.
        counts: fakes in train and test (as many real images stand beside them).
        photographs: how many photographs were used.
        skipped: one line per photograph that was not used, with its reason.
        warnings: about the files of the folder that are no photographs.
    """

    out: Path
    counts: dict[str, int] = field(default_factory=dict)
    photographs: int = 0
    skipped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def synthesize(
    photos: Path,
    out: Path,
    *,
    seed: int = 0,
    per_photo: int = 1,
    size: int | None = 512,
    test_fraction: float = 0.2,
    val_fraction: float = 0.1,
    categories: Sequence[str] = (),
) -> Synthesis:
    """Edit the photographs of a folder and write them as the `xaigd` source reads them.

    ``out`` receives ``data/labeled_{train,test}-00000-of-00001.parquet`` (the fakes with their
    polygons), ``real/<uid>.png`` (the untouched twins: same crop, same size, same PNG encoder) and
    ``uid_splits.csv``, which also names the validation uids among those of ``labeled_train``. All
    crops of a photograph are in one split. ``out`` appears only when everything is written.

    Args:
        photos: folder of real photographs, searched with its sub-folders.
        out: folder to make; must not exist, or be empty.
        seed: same photographs and seed, same data set.
        per_photo: pairs per photograph, each with a uid of its own.
        size: side of the square crops in pixels; photographs are never enlarged, so small ones give
            smaller crops. None keeps the resolution and the shape: the first pair is the whole
            photograph, further ones are crops of it.
        test_fraction: share of the photographs in the test split, in [0, 1).
        val_fraction: share in the validation split, in [0, 1); of three or more photographs at
            least one. Without a validation photograph the `xaigd` source draws by uid.
        categories: X-AIGD labels of the edits that may occur; none means all seven.

    Raises:
        ArtifactNetError: an argument is impossible, no photograph can be used, the disk is full or
            ``out`` cannot be written; nothing is left behind.
    """
    photos, out = Path(photos), Path(out)
    kinds = edits.parse_categories(categories, "categories")
    shares = {"test": test_fraction, "val": val_fraction}
    if not photos.is_dir():
        raise ArtifactNetError(f"{photos}: no such folder of photographs")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArtifactNetError(f"{out}: exists already; name a new folder or remove it")
    if seed < 0:
        raise ArtifactNetError(f"seed is {seed}; use 0 or more")
    if per_photo < 1:
        raise ArtifactNetError(f"per_photo is {per_photo}; use 1 or more")
    if size is not None and size < edits.MIN_SIDE:
        raise ArtifactNetError(f"size is {size}; use at least {edits.MIN_SIDE} pixels")
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ArtifactNetError(f"{name}_fraction is {share}; use 0 up to below 1")
    if sum(shares.values()) >= 1:
        raise ArtifactNetError(
            f"test_fraction {shares['test']} and val_fraction {shares['val']} leave no photograph "
            "for training; make them smaller"
        )
    summary = Synthesis(out)
    by_digest = _list_photographs(photos, summary)
    parts = split_uids(by_digest, {"train": 1 - sum(shares.values()), **shares}, seed)

    def pairs(digests: Iterable[str]) -> Iterator[EditedPair]:
        """Pairs of photographs; one that fails gives none of its pairs and is listed."""
        for digest in digests:
            path = by_digest[digest]
            try:
                photo = decode_image(path, str(path))
                edited = [
                    _make_pair(photo, path, [seed, int(digest, 16), number], size, kinds)
                    for number in range(per_photo)
                ]
            except ArtifactNetError as error:
                reason = str(error)
                summary.skipped.append(reason if str(path) in reason else f"{path}: {reason}")
                continue
            summary.photographs += 1
            yield from edited

    def write(folder: Path) -> None:
        (folder / "data").mkdir()
        (folder / "real").mkdir()
        rows: list[tuple[str, str]] = []
        val = set(parts["val"])
        # X-AIGD has no shards for validation
        for part, digests in (("train", parts["train"] + parts["val"]), ("test", parts["test"])):
            uids = write_shard(folder, part, pairs(digests), seed)
            summary.counts[part] = len(uids)
            rows += [(uid, "val" if uid.rsplit("_", 2)[1] in val else part) for uid in uids]
        if not rows:
            raise ArtifactNetError(
                f"none of {len(summary.skipped)} photographs can be used; "
                f"the first: {summary.skipped[0]}"
            )
        with open(folder / "uid_splits.csv", "w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([("uid", "split"), *sorted(rows)])

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
        try:
            write(work)
            work.chmod(0o755)  # mkdtemp makes private folders
            if out.exists():
                out.rmdir()
            work.rename(out)
        finally:
            if work.exists():  # something failed
                shutil.rmtree(work)
    except OSError as error:
        reason = error.strerror or error  # pyarrow's errors have no strerror
        raise ArtifactNetError(f"{out}: the data set could not be written: {reason}") from error
    return summary


def _list_photographs(photos: Path, summary: Synthesis) -> dict[str, Path]:
    """Photographs by content, so that copies of one cannot reach two splits."""
    by_digest: dict[str, Path] = {}
    skipped = Skipped()
    for entry in FileWalk().files(photos, skipped):
        path = Path(entry.path)
        if entry.reason is not None:
            if entry.claims:
                summary.skipped.append(f"{path}: {entry.complaint}")
            else:
                skipped.add(entry.reason, entry.path)
            continue
        try:
            digest = blake2b(path.read_bytes(), digest_size=8).hexdigest()
        except OSError as error:
            summary.skipped.append(f"{path}: cannot be read ({error.strerror})")
            continue
        if digest in by_digest:
            summary.skipped.append(f"{path}: a copy of {by_digest[digest]}")
        else:
            by_digest[digest] = path
    if not by_digest and not summary.skipped:
        held = f"; it holds {'; '.join(skipped.lines())}" if skipped.counts else ""
        raise ArtifactNetError(f"{photos}: holds no photographs{held}; name their folder")
    summary.warnings += skipped.describe(photos)
    return by_digest


def _make_pair(
    photo: UInt8Array,
    path: Path,
    seed: list[int],
    size: int | None,
    categories: tuple[Category, ...],
) -> EditedPair:
    """A crop of a photograph and its edited twin.

    ``seed`` is that of the run, the digest of the photograph and the number of the pair.
    """
    _, digest, number = seed
    rng = np.random.default_rng(seed)
    real = _crop(photo, rng, size, whole=number == 0)
    chosen = edits.choose_categories(rng, categories)
    fake, mask = edits.edit_photo(real, rng, chosen)
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem)[:40]
    return EditedPair(f"{stem}_{digest:016x}_{number:03d}", real, fake, mask, chosen)


def _crop(photo: UInt8Array, rng: np.random.Generator, size: int | None, whole: bool) -> UInt8Array:
    """Square crop of at most ``size`` pixels, or (None) a crop of the photograph's own shape."""
    height, width = photo.shape[:2]
    if size is None:
        scale = 1.0 if whole else float(rng.uniform(_SMALLEST_CROP, 1.0))
        rows, columns = round(scale * height), round(scale * width)
    else:
        short = min(height, width)
        size = min(size, short)
        smallest = max(size, round(_SMALLEST_CROP * short))
        rows = columns = int(rng.integers(smallest, short + 1))
    top = int(rng.integers(height - rows + 1))
    left = int(rng.integers(width - columns + 1))
    crop = photo[top : top + rows, left : left + columns]
    if size is not None:
        crop = np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(crop)
