"""From the logits of a segmentation head to maps of the original image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from artifactnet.data.geometry import Geometry, restore
from artifactnet.models import segmentation
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import ArtifactNetError, Float32Array, UInt8Array

_STRIP = 1 << 20  # pixels that are turned into a mask at once, which bounds the memory it takes


def frame_probabilities(logits: Tensor, size: tuple[int, int]) -> Float32Array:
    """Probability of each category on a model's frame.

    The logits are interpolated, not the probabilities, as the head was trained.

    Args:
        logits: (K, h, w) of one image, K = 8 (softmax) or 7 (sigmoids).
        size: height and width of the frame, pixels.

    Returns:
        (7, H, W) in [0, 1].

    Raises:
        ArtifactNetError: the model's answer is not a number.
    """
    full = functional.interpolate(
        logits[None].float(), size=size, mode="bilinear", align_corners=False
    )
    each = segmentation.probabilities(full)[0][0]
    if not bool(torch.isfinite(each).all()):
        raise ArtifactNetError("the model's map of artifacts is not a number (NaN)")
    found: Float32Array = each.numpy()
    return found


def restore_planes(planes: Float32Array, geometry: Geometry) -> Float32Array:
    """Bring the planes of a frame back to the original image.

    Args:
        planes: (7, h, w) that cover the whole frame.
        geometry: what brought the image into the frame.

    Returns:
        (7, H0, W0), see `artifactnet.data.geometry.restore`; pixels not seen are 0.
    """
    restored = np.empty((len(planes), *geometry.original), np.float32)
    for plane, into in zip(planes, restored, strict=True):  # one at a time: they may be large
        into[:] = restore(plane, geometry)
    return restored


def find_artifacts(
    categories: Float32Array, threshold: float, exclusive: bool, known: Sequence[int]
) -> tuple[Float32Array, UInt8Array]:
    """Probability of any artifact, and the mask.

    Both come from the categories at the original size, so that where the map exceeds the
    threshold and where the mask is set are the same pixels. (The largest of resampled planes is
    not the resampled largest plane; a mask from the latter had rims without a category.)

    Args:
        categories: (7, H, W) in [0, 1].
        threshold: artifact if above, strictly.
        exclusive: the categories share one softmax, so any artifact has their sum; otherwise
            each has its own sigmoid, and any artifact has the largest.
        known: indices 1..7 of the categories that the model was taught.

    Returns:
        (H, W) float32 in [0, 1] and (H, W) uint8 bit field, see `segmentation.bit_field`.

    Raises:
        ValueError: not seven planes.
    """
    if categories.ndim != 3 or len(categories) != len(CATEGORIES):
        raise ValueError(f"expected (7, H, W) probabilities, got shape {categories.shape}")
    height, width = categories.shape[1:]
    artifact = np.empty((height, width), np.float32)
    mask = np.zeros((height, width), np.uint8)
    step = max(1, _STRIP // width)
    for top in range(0, height, step):
        rows = slice(top, top + step)
        strip = categories[:, rows]
        some = np.minimum(strip.sum(0), 1) if exclusive else strip.max(0)
        artifact[rows] = some
        found = some > threshold  # few pixels as a rule, and the choice among seven is slow
        mask[rows][found] = segmentation.bit_field(
            torch.from_numpy(strip[:, found])[None, :, None],
            torch.from_numpy(some[found])[None, None],
            threshold,
            exclusive,
            known,
        ).numpy()[0, 0]
    return artifact, mask
