"""From an edit's proposal to the final pixels and the exact mask of what changed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from artifactnet.data.synthetic.edits.regions import BoolArray, pixels
from artifactnet.types import Float32Array, UInt8Array

TOLERANCE = 6  # largest channel difference that still counts as unchanged
MARGIN = 2  # pixels around the mask that may differ by TOLERANCE or less
_SMALLEST_SPECK = 0.002  # share of the image; smaller changed islands are taken back


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a variant of an edit proposes.

    Attributes:
        edited: (H, W, 3) uint8, the whole image after the edit.
        alpha: (H, W) float32 in [0, 1], how much of ``edited`` shows.
        gap: pixels at 192 px; unchanged gaps up to this wide inside the edit belong to its mask
            (the background between letters, flat spots inside a scrambled texture).
    """

    edited: UInt8Array
    alpha: Float32Array
    gap: float = 5.0


@dataclass(frozen=True, slots=True)
class Change:
    """A composed edit.

    Attributes:
        image: (H, W, 3) uint8; bit-identical to the original beyond MARGIN px of the mask.
        mask: (H, W) bool, the changed pixels, closed a little.
        strength: mean absolute difference inside the mask, 0..255; 0 if the mask is empty.
    """

    image: UInt8Array
    mask: BoolArray
    strength: float


def compose(original: UInt8Array, proposal: Proposal) -> Change:
    """Blend a proposal into the original and find exactly what it changed."""
    alpha = proposal.alpha[..., None]
    mixed = original + alpha * (proposal.edited.astype(np.float32) - original)
    blended = np.clip(np.round(mixed), 0, 255).astype(np.uint8)
    difference = cv2.absdiff(blended, original)
    changed = (difference.max(axis=2) > TOLERANCE).astype(np.uint8)
    mask = _solid(changed, pixels(original, proposal.gap)) & (proposal.alpha > 0)
    near = cv2.dilate(mask.astype(np.uint8), np.ones((2 * MARGIN + 1,) * 2, np.uint8))
    kept = mask | ((near > 0) & (changed == 0))  # the faint border stays, dropped islands do not
    image = np.where(kept[..., None], blended, original)
    strength = float(difference[mask].mean()) if mask.any() else 0.0
    return Change(image, mask, strength)


def _solid(changed: UInt8Array, gap: int) -> BoolArray:
    """Changed pixels with gaps closed and islands dropped, (H, W) bool."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap | 1, gap | 1))
    closed = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, kernel)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= _SMALLEST_SPECK * changed.size
    keep[0] = False  # label 0 is the unchanged background
    return keep[labels]
