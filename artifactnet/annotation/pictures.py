"""How images are sent to a model that annotates them."""

from __future__ import annotations

from artifactnet.data.geometry import resample
from artifactnet.data.images import encode_jpeg
from artifactnet.types import UInt8Array

MAX_SIDE = 2048  # pixels; endpoints shrink larger images, or refuse them
_QUALITY = 95


def sent_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in which an image of ``size`` is sent: at most `MAX_SIDE` a side."""
    scale = min(1.0, MAX_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def to_jpeg(image: UInt8Array) -> bytes:
    """The JPEG of an (H, W, 3) image as it is sent, without loss of colours."""
    return encode_jpeg(
        resample(image, sent_size((image.shape[0], image.shape[1]))), _QUALITY, "4:4:4"
    )
