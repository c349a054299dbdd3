"""How often each class of pixel occurs in the training masks, and what it therefore weighs."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifactnet.data.sources.base import Source
from artifactnet.files import write_json
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED_BIT
from artifactnet.types import Annotation, ArtifactNetError

logger = logging.getLogger(__name__)
CLASSES = ("background", *(category.label for category in CATEGORIES), "uncategorized")


@dataclass(frozen=True, slots=True)
class ClassFrequencies:
    """Pixels of each class in the annotated fakes, at their original size.

    Attributes:
        pixels: per class in the order of `CLASSES`. A pixel of several categories counts for each;
            one with a category is not uncategorised.
        images: masks counted.
    """

    pixels: list[int]
    images: int

    def weights(self, power: float = 1.0) -> list[float]:
        """Class weights ``c / f_k ** power``, f_k the share of class k among all counted.

        Power 1 is "about inverse to the pixel frequency" (X-AIGD B.2); 1/2 weighs rare classes
        up less, for masks that are not to claim too much. ``c`` makes the weight of an average
        pixel, ``sum_k f_k w_k``, 1. A class that does not occur weighs 1.
        """
        total = sum(self.pixels)
        shares = [count / total for count in self.pixels if count]
        scale = 1 / sum(share ** (1 - power) for share in shares) if shares else 1.0
        return [scale * (total / count) ** power if count else 1.0 for count in self.pixels]

    @property
    def categories(self) -> tuple[int, ...]:
        """Indices 1..7 of the categories that occur."""
        return tuple(c.index for c in CATEGORIES if self.pixels[c.index] > 0)


def class_frequencies(source: Source, cache_dir: Path, on_error: str = "raise") -> ClassFrequencies:
    """Count the pixels of each class over the annotated fakes of a training split.

    The counts are kept in ``cache_dir`` under a fingerprint of the records (where the images are,
    what is annotated in them), not of the masks' pixels: remove the file after redrawing masks in
    place. Where images were skipped, nothing is kept.

    Args:
        source: the split; only images whose annotation is MASK are loaded.
        cache_dir: folder of the counts; made if missing.
        on_error: ``raise``, or ``skip``: an image that cannot be used is logged and left out.

    Returns:
        The counts; all zero if the split has no annotated fake.

    Raises:
        ArtifactNetError: an image cannot be used (with ``skip``: none can), or ``cache_dir``
            cannot be written.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    annotated = [i for i, r in enumerate(source.records) if r.annotation is Annotation.MASK]
    path = Path(cache_dir) / f"class_pixels-{_fingerprint(source, annotated)}.json"
    frequencies = _read(path, len(annotated))
    if frequencies is not None:
        return frequencies
    frequencies = _count(source, annotated, on_error)
    if frequencies.images == len(annotated):
        try:
            write_json(path, {"pixels": frequencies.pixels, "images": frequencies.images})
        except OSError as error:
            raise ArtifactNetError(f"{path}: cannot be written: {error.strerror}") from None
    return frequencies


def _fingerprint(source: Source, annotated: list[int]) -> str:
    """16 hexadecimal digits that depend on the annotated records alone."""
    digest = hashlib.blake2b(digest_size=8)
    for index in annotated:
        record = source.records[index]
        fields = [record.location, record.uid, int(record.annotation), record.categories]
        digest.update(json.dumps(fields).encode() + b"\n")
    return digest.hexdigest()


def _read(path: Path, images: int) -> ClassFrequencies | None:
    """Counts of a cache file; None if there is none, or it is damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        pixels, counted = data["pixels"], data["images"]
        if not all(type(count) is int and count >= 0 for count in pixels):
            raise ValueError("a count is not a whole number")
        if len(pixels) != len(CLASSES) or counted != images:
            raise ValueError("the counts are not those of this split")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s: damaged (%s); counting again", path, str(error).splitlines()[0])
        return None
    return ClassFrequencies(pixels, images)


def _count(source: Source, annotated: list[int], on_error: str) -> ClassFrequencies:
    histogram = np.zeros(256, np.int64)  # of bit-field values
    images = 0
    for index in annotated:
        try:
            mask = source.load(index).mask
            if mask is None:
                location = source.records[index].location
                raise ArtifactNetError(f"{location}: annotation is MASK but the sample has no mask")
        except ArtifactNetError as error:
            if on_error == "raise":
                raise
            where = source.records[index].location
            logger.warning("skipped %s for class weights (data.on_error=skip): %s", where, error)
            continue
        histogram += np.bincount(mask.ravel(), minlength=256)
        images += 1
    if annotated and not images:
        raise ArtifactNetError(
            f"not one of {len(annotated)} artifact masks can be used (data.on_error=skip); the "
            f"first is of {source.records[annotated[0]].location}: run with data.on_error=raise "
            "to see what is wrong"
        )
    values = np.arange(256)
    of_category = [int(histogram[(values & c.bit) > 0].sum()) for c in CATEGORIES]
    pixels = [int(histogram[0]), *of_category, int(histogram[UNCATEGORIZED_BIT])]
    return ClassFrequencies(pixels, images)
