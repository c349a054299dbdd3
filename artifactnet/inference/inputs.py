"""A path, file content, PIL image, array or tensor as 8-bit RGB pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from artifactnet.data.depth import to_8_bit
from artifactnet.data.images import decode_image
from artifactnet.types import ArtifactNetError, UInt8Array

ImageLike: TypeAlias = str | Path | bytes | Image.Image | npt.NDArray[Any] | torch.Tensor

_LAYOUTS = "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
_CHANNELS = ((), (1,), (3,), (4,))


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An image to predict.

    Attributes:
        name: what predictions and errors call it: its path, or ``shard.parquet#row``.
        image: a path, the content of an image file, or its pixels.
        generator: what made it, as the benchmark's folders call it; None if unknown.
        uid: its name among the images of that generator; None if unknown.
    """

    name: str
    image: ImageLike
    generator: str | None = None
    uid: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An image, as the caller named it, that could not be predicted, and why, in one line."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """A decoded image: its name in predictions, its path if it has one, (H, W, 3) pixels."""

    name: str
    path: str | None
    pixels: UInt8Array


def open_image(
    number: int, source: ImageLike | ImageInput | Failure, levels: int | None = None
) -> OpenedImage | Failure:
    """Decode an image; a failure is passed on, an unusable image becomes one.

    An image without a name is called by its number among those of the call. ``levels``: see
    `to_pixels`.
    """
    if isinstance(source, Failure):
        return source
    path = str(source) if isinstance(source, str | Path) else None
    if isinstance(source, ImageInput):
        path, source = source.name, source.image
    name = f"image {number}" if path is None else path
    try:
        return OpenedImage(name, path, to_pixels(source, name, levels))
    except ArtifactNetError as error:
        return Failure(name, str(error).removeprefix(f"{name}: "))


def to_pixels(image: ImageLike, name: str, levels: int | None = None) -> UInt8Array:
    """Pixels of one image.

    Args:
        image: a file's path or content; a PIL image; an array (H, W[, 1|3|4]) in RGB order of
            integers, bool or float; a tensor ([1|3|4, ]H, W) of the same dtypes. Alpha is
            composited on white.
        name: what errors call the image.
        levels: the value of white in images of more than 8 bits, and in arrays and tensors other
            than uint8 and bool; None: what the file declares, 1 for float arrays, or what is
            evident (see `artifactnet.data.depth`).

    Returns:
        (H, W, 3) uint8, sRGB.

    Raises:
        ArtifactNetError: not an image, or an array of another shape, type or range.
    """
    if isinstance(image, str | Path | bytes | Image.Image):
        return decode_image(image, name, levels)
    if isinstance(image, torch.Tensor):
        image = _from_tensor(image, name)
    if not isinstance(image, np.ndarray):
        raise ArtifactNetError(
            f"{name}: cannot read a {type(image).__name__} as an image; give a path, a file's "
            "content, a PIL image, a numpy array or a tensor"
        )
    if image.ndim not in (2, 3) or 0 in image.shape or image.shape[2:] not in _CHANNELS:
        raise ArtifactNetError(f"{name}: an array of shape {image.shape} is not {_LAYOUTS}")
    if image.dtype.kind not in "buif":
        raise ArtifactNetError(
            f"{name}: an array of {image.dtype} has no known range; give integers, bool or float"
        )
    if image.dtype.kind == "f" and levels is None:
        low, high = float(image.min()), float(image.max())
        if not (low >= 0.0 and high <= 1.0):  # also true for NaN
            raise ArtifactNetError(
                f"{name}: a float array must lie in [0, 1], this one spans [{low:g}, {high:g}]; "
                "scale it, or pass the value of white as levels"
            )
    pixels = to_8_bit(image[..., 0] if image.shape[2:] == (1,) else image, name, levels)
    return decode_image(Image.fromarray(pixels), name)


def _from_tensor(image: torch.Tensor, name: str) -> npt.NDArray[Any]:
    if image.ndim == 3 and image.shape[0] not in (1, 3, 4):
        raise ArtifactNetError(
            f"{name}: a tensor of shape {tuple(image.shape)} is not (H, W) or (1|3|4, H, W)"
        )
    image = image.detach().cpu()
    if image.dtype is torch.bfloat16:  # numpy has no such type
        image = image.float()
    array: npt.NDArray[Any] = image.numpy()
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array
