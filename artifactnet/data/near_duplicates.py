"""Nearly the same picture under two labels or in two splits: recompressed, resized, relit.

Each image gets a difference hash of 128 bits: whether each cell of a grid is brighter than its
neighbour, 8 x 8 to the right and 8 x 8 below. Hashes are compared only where one of eight bands of
16 bits is equal, which finds every pair of up to 7 different bits without comparing all pairs.
What agrees must also correlate as a small picture, or empty pictures would all be alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import numpy.typing as npt

from artifactnet.data.duplicates import Image, content_of
from artifactnet.data.images import gray_thumbnail
from artifactnet.data.sources.base import Splits
from artifactnet.types import Annotation, ArtifactNetError, Float32Array, Record, UInt8Array

MAX_COMPARED = 10_000  # images of a data set; of more, all of test and val, then an even share
MAX_BITS = 16  # of 128 that may differ
MIN_CORRELATION = 0.95  # of thumbnails
_SIDE = 16  # of a thumbnail
_FLAT = 2.0  # standard deviation, levels; a flatter picture shows nothing to compare
_BANDS = 8
_NEIGHBOURS = 200  # in a band: more images that agree in it say that it means nothing
_CHUNK = 64  # images in memory
_BITS = np.array([bin(value).count("1") for value in range(256)], dtype=np.uint8)
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """Pairs of images that look alike.

    Attributes:
        pairs: in the order of the data; the two are of different labels or splits.
        compared: how many images were compared.
        of: how many there are.
    """

    pairs: list[tuple[Image, Image]]
    compared: int
    of: int


def find_near_duplicates(splits: Splits) -> NearDuplicates:
    """Pairs across labels or splits that look alike and are no known twins.

    Known twins are a photograph and a fake of one uid (file stem), and, within a split, a
    photograph and a fake with a mask: an edited picture looks like its original by design. Sources
    with ``known_twins`` hold no other pairs by construction and are left out. At most
    `MAX_COMPARED` images are decoded. An image that cannot be read looks like no other: loading it
    reports the error.
    """
    splits = {k: one for k, one in splits.items() if not getattr(one, "known_twins", False)}
    chosen, total = _choose(splits)
    hashes, thumbnails, images = [], [], []
    for image, thumbnail in _thumbnails(splits, chosen):
        if thumbnail.std() >= _FLAT:
            images.append(image)
            hashes.append(difference_hash(thumbnail))
            thumbnails.append(thumbnail)
    pairs: list[tuple[Image, Image]] = []
    if images:
        records = [splits[name].records[index] for name, index in images]
        names = list(splits)
        unit = _unit_vectors(thumbnails)
        groups = np.array(
            [2 * names.index(image[0]) + r.label for image, r in zip(images, records, strict=True)]
        )
        for a, b in similar_hashes(np.stack(hashes), groups):
            alike = unit[a] @ unit[b] >= MIN_CORRELATION  # their correlation
            same_split = images[a][0] == images[b][0]
            if alike and not _are_twins(records[a], records[b], same_split):
                pairs.append((images[a], images[b]))
    return NearDuplicates(pairs, len(chosen), total)


def describe_near_duplicates(splits: Splits, found: NearDuplicates, named: int = 10) -> list[str]:
    """Warnings: how many pairs there are and the first few, and whether some were not compared."""
    warnings = []
    if found.pairs:
        texts = [
            " ~ ".join(_place(splits, image) for image in pair) for pair in found.pairs[:named]
        ]
        count = len(found.pairs)
        pairs = "1 pair of images looks" if count == 1 else f"{count} pairs of images look"
        warnings.append(
            f"{pairs} nearly the same across labels or splits (recompressed, resized, edited?), "
            f"e.g. {'; '.join(texts)}"
        )
    if found.compared < found.of:
        warnings.append(
            f"{found.compared} of {found.of} images were compared for nearly the same pictures"
        )
    return warnings


def _place(splits: Splits, image: Image) -> str:
    record = splits[image[0]].records[image[1]]
    return f"{record.location} ({'fake' if record.label else 'real'}, {image[0]})"


def _are_twins(a: Record, b: Record, same_split: bool) -> bool:
    if a.uid == b.uid:
        return True
    fake = a if a.label else b
    return same_split and a.label != b.label and fake.annotation is Annotation.MASK


def _choose(splits: Splits) -> tuple[list[Image], int]:
    """Images to compare, and how many there are."""
    total = sum(len(source.records) for source in splits.values())
    left = MAX_COMPARED
    chosen: list[Image] = []
    for name in sorted(splits, key=lambda name: len(splits[name].records)):  # small ones whole
        count = len(splits[name].records)
        size = min(count, left)
        chosen += [(name, k * count // size) for k in range(size)]
        left -= size
    order = {name: k for k, name in enumerate(splits)}
    return sorted(chosen, key=lambda image: (order[image[0]], image[1])), total


def _thumbnails(splits: Splits, images: list[Image]) -> Iterator[tuple[Image, UInt8Array]]:
    """Thumbnails of the images that can be read, in order, decoded in parallel."""

    def thumbnail(content: bytes | str | None) -> UInt8Array | None:
        try:
            return None if content is None else gray_thumbnail(content, _SIDE)
        except ArtifactNetError:
            return None

    def read(image: Image) -> bytes | str | None:
        try:
            return content_of(splits[image[0]], image[1])
        except ArtifactNetError:
            return None

    rest = iter(images)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while chunk := list(islice(rest, _CHUNK)):
            contents = [read(image) for image in chunk]  # readers of shards know one thread
            for image, small in zip(chunk, pool.map(thumbnail, contents), strict=True):
                if small is not None:
                    yield image, small


def difference_hash(thumbnail: UInt8Array) -> UInt8Array:
    """16 bytes of a (h, w) gray picture; the bits of a row of the grid lie in different bands."""
    size = 8
    wide = cv2.resize(thumbnail, (size + 1, size), interpolation=cv2.INTER_AREA).astype(np.int16)
    tall = cv2.resize(thumbnail, (size, size + 1), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = np.concatenate(
        [(np.diff(wide, axis=1) > 0).ravel(), (np.diff(tall, axis=0) > 0).ravel()]
    )
    return np.packbits(bits.reshape(-1, _BANDS).T)


def similar_hashes(hashes: UInt8Array, groups: IntArray) -> list[tuple[int, int]]:
    """Ascending pairs of hashes, (N, 16) uint8, of different groups and at most `MAX_BITS` apart.

    All pairs with an equal band are compared, unless more than `_NEIGHBOURS` share one.
    """
    found: set[tuple[int, int]] = set()
    bands = np.ascontiguousarray(hashes).view(np.uint16)
    whole = np.ascontiguousarray(hashes).view(np.uint64)
    for band in range(bands.shape[1]):
        # equal hashes lie beside each other, whatever else shares the band
        order = np.lexsort((whole[:, 1], whole[:, 0], bands[:, band]))
        keys = bands[order, band]
        first = np.arange(len(order))
        for shift in range(1, _NEIGHBOURS + 1):
            first = first[first + shift < len(order)]
            first = first[keys[first] == keys[first + shift]]
            if not len(first):
                break
            a, b = order[first], order[first + shift]
            differ = groups[a] != groups[b]
            a, b = a[differ], b[differ]
            close = _BITS[hashes[a] ^ hashes[b]].sum(axis=1) <= MAX_BITS
            low, high = np.minimum(a, b)[close], np.maximum(a, b)[close]
            found.update(zip(low.tolist(), high.tolist(), strict=True))
    return sorted(found)


def _unit_vectors(thumbnails: list[UInt8Array]) -> Float32Array:
    """Gray values of pictures that are not flat, one row each, of mean 0 and length 1."""
    rows = np.stack(thumbnails).reshape(len(thumbnails), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
