"""Low level, color: wrong hues, colour that bleeds, saturated blotches."""

from __future__ import annotations

import cv2
import numpy as np

from artifactnet.data.synthetic.edits.blend import Proposal
from artifactnet.data.synthetic.edits.regions import blob, feather, unit
from artifactnet.types import UInt8Array


def hue(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """The region has a hue it cannot have; gray surfaces gain one."""
    region = blob(image, rng, busy=False)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int32)
    hsv[..., 0] = (hsv[..., 0] + int(rng.integers(30, 150))) % 180  # OpenCV: 180 is a full turn
    hsv[..., 1] = np.maximum(hsv[..., 1], int(90 + 90 * severity))
    hsv[..., 2] = np.maximum(hsv[..., 2], 60)  # hue cannot be seen in black
    edited = cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
    return Proposal(np.asarray(edited, np.uint8), feather(region, 1.5 * unit(image)))


def bleed(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """Colour runs over the contours it belongs to: chroma displaced, blurred, exaggerated."""
    region = blob(image, rng)
    scale = unit(image)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    angle = rng.uniform(0, 2 * np.pi)
    distance = (12 + 14 * severity) * scale
    move = np.array(
        [[1, 0, distance * np.cos(angle)], [0, 1, distance * np.sin(angle)]], np.float32
    )
    height, width = image.shape[:2]
    chroma = cv2.warpAffine(lab[..., 1:], move, (width, height), borderMode=cv2.BORDER_REFLECT)
    chroma = cv2.GaussianBlur(chroma, (0, 0), 3 * scale).astype(np.float32) - 128
    boost = (2 + 2 * severity) * chroma
    lab[..., 1:] = np.clip(128 + boost, 0, 255).astype(np.uint8)
    edited = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    return Proposal(np.asarray(edited, np.uint8), feather(region, 2 * scale))


def blotch(image: UInt8Array, rng: np.random.Generator, severity: float) -> Proposal:
    """A cloud of one saturated colour lies over the region."""
    region = blob(image, rng, busy=False)
    tint = np.zeros((1, 1, 3), np.uint8)
    tint[0, 0] = (
        int(rng.integers(0, 180)),
        int(rng.integers(190, 256)),
        int(rng.integers(150, 256)),
    )
    color = cv2.cvtColor(tint, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
    opacity = 0.35 + 0.35 * severity
    edited = image + opacity * (color - image.astype(np.float32))
    return Proposal(edited.clip(0, 255).astype(np.uint8), feather(region, 2.5 * unit(image)))
