"""What is known for certain about an image that was edited on purpose, in classes that have words.

`artifactnet.vlm.text.writing` puts such facts into words, `artifactnet.vlm.text.reading` reads
them back.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED, UNCATEGORIZED_BIT
from artifactnet.types import Float32Array, UInt8Array
from artifactnet.vlm.text.places import main_places

SIZES = ("small", "medium", "large")
STRENGTHS = ("mild", "moderate", "severe")
PLAUSIBILITIES = ("very low", "low", "fair", "high", "full")
# thirds of the embedded data's regions
_SIZE_BOUNDS = (0.07, 0.125)  # share of the image
_STRENGTH_BOUNDS = (30.0, 50.0)  # mean absolute change inside the region, levels of 255
_PLAUSIBILITY_BOUNDS = (0.25, 0.5, 0.75)  # score; full is what has no finding
_BITS = {UNCATEGORIZED: UNCATEGORIZED_BIT} | {c.label: c.bit for c in CATEGORIES}
LABELS = tuple(_BITS)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong somewhere in an image.

    Attributes:
        label: X-AIGD label of its category; ``uncategorized``: repainted by a generative network.
        places: of `artifactnet.vlm.text.places.PLACES`, the fullest first; none: spread.
        size: index into `SIZES`, by the share of the image.
        strength: index into `STRENGTHS`, by how much the pixels there were changed.
    """

    label: str
    places: tuple[str, ...]
    size: int
    strength: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is wrong with an image.

    Attributes:
        findings: one for each category, the largest region first; none: it is untouched.
        plausibility: index into `PLAUSIBILITIES`, by the score; full if nothing was found.
    """

    findings: tuple[Finding, ...]
    plausibility: int


UNTOUCHED = Facts((), len(PLAUSIBILITIES) - 1)


def find_facts(mask: UInt8Array, change: Float32Array, score: float) -> Facts:
    """The facts of an edited image.

    Args:
        mask: (H, W) bit field of the categories, see `artifactnet.taxonomy`.
        change: (H, W) absolute change of each pixel, mean of the channels, in levels of 255.
        score: plausibility in [0, 1].
    """
    findings = []
    for label, marked in marked_regions(mask):
        size = bisect_right(_SIZE_BOUNDS, float(marked.mean()))
        degree = bisect_right(_STRENGTH_BOUNDS, float(np.mean(change[marked])))
        findings.append(Finding(label, main_places(marked), size, degree))
    if not findings:
        return UNTOUCHED
    return Facts(tuple(findings), bisect_right(_PLAUSIBILITY_BOUNDS, score))


def marked_regions(mask: UInt8Array) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Label and (H, W) region of each category in a bit field of them, the largest first."""
    layers = [(label, (mask & bit) > 0) for label, bit in _BITS.items()]
    found = [(label, marked) for label, marked in layers if marked.any()]
    return sorted(found, key=lambda pair: -np.count_nonzero(pair[1]))
