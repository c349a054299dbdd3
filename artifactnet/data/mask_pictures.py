"""Recognizing masks by their pixels, where neither folder nor name says what they are."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from artifactnet.data.folder_names import stem_of_mask
from artifactnet.data.images import decode_image, probe_image
from artifactnet.types import ArtifactNetError

_LOSSLESS = 0.4  # bytes per pixel: a file of two levels compresses to less
_LOSSY = 0.15
_LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000", "HEIF")
_UNCOMPRESSED = ("BMP", "PPM", "TIFF", "TGA")
_NEAR = 24  # levels: how far lossy compression moves a pixel; soft edges go further
_SHARE = 0.98  # of pixels of a mask that are near one of its two levels
_CONTRAST = 64  # least difference of the two levels, unless they are exact


def find_mask_pictures(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Pictures of two levels beside an image of their stem: (mask, image), in the given order.

    ``7.png`` and ``7_mask.png`` are masks of ``7.jpg`` if they hold two levels and it does not.
    Only files that are small for their size are decoded.
    A file that cannot be read is no mask: loading it reports the error.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_stem[_stem(path)].append(path)
    known: dict[str, bool] = {}

    def two_levels(path: str) -> bool:
        if path not in known:
            known[path] = has_two_levels(path)
        return known[path]

    found = []
    for path in paths:
        stem = _stem(path)
        mates = [*by_stem[stem], *by_stem.get(stem_of_mask(stem), ())]
        mates = [mate for mate in mates if mate != path]
        if mates and two_levels(path):
            image = next((mate for mate in mates if not two_levels(mate)), None)
            if image is not None:
                found.append((path, image))
    return found


def has_two_levels(path: str) -> bool:
    """Whether a picture is of two levels, as masks are, but for soft edges and lossy compression.

    Pictures of a single level do not count: an empty mask cannot be told from an empty image.
    """
    try:
        kind, width, height = probe_image(path)
        lossy = kind in _LOSSY_FORMATS
        limit = width * height * (_LOSSY if lossy else _LOSSLESS) + 2048  # headers
        if kind not in _UNCOMPRESSED and os.path.getsize(path) > limit:
            return False
        pixels = decode_image(path, path)
    except (ArtifactNetError, OSError):
        return False
    colours = pixels.reshape(-1, 3)
    others = colours[(colours != colours[0]).any(axis=1)]
    if len(others) == 0:
        return False
    if (others == others[0]).all():
        return True
    gray = pixels[..., :1].astype(np.int16)
    if np.abs(pixels - gray).max() > _NEAR:  # coloured
        return False
    low, high = int(gray.min()), int(gray.max())
    near = (gray - low <= _NEAR) | (high - gray <= _NEAR)
    return high - low >= _CONTRAST and bool(near.mean() >= _SHARE)


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]
