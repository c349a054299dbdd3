"""Predicted masks as folders of PNG files, and the size at which they are compared."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from artifactnet.data.images import EXTENSIONS, MAX_PIXELS, decode
from artifactnet.types import ArtifactNetError, UInt8Array

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class View:
    """How ground truth is brought to the size of the predictions; by default not at all.

    Attributes:
        resize: (height, width) to resize to.
        short_side: the length to resize the short side to instead; the long one becomes
            ``int(long * short_side / short)``.
        crop: (height, width) to cut from the centre afterwards.
    """

    resize: tuple[int, int] | None = None
    short_side: int | None = None
    crop: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.resize is not None and self.short_side is not None:
            raise ArtifactNetError("resize to a size or by the short side, not both")
        for value in (*(self.resize or ()), *(self.crop or ()), self.short_side):
            if value is not None and value < 1:
                raise ArtifactNetError(f"sizes to resize or crop to must be above 0, not {value}")

    def apply(self, mask: UInt8Array, where: object) -> UInt8Array:
        """The mask at the size of comparison, by nearest neighbour (X-AIGD, public metrics).

        Args:
            mask: (H, W) uint8 bit field.
            where: what to call its image in messages.

        Raises:
            ArtifactNetError: the crop is larger than the mask, or the mask would be resized to
                more pixels than an image may have.
        """
        height, width = self._resized(mask.shape[0], mask.shape[1])
        if height * width > MAX_PIXELS:
            raise ArtifactNetError(
                f"{where}: resizing to {width}x{height} exceeds {MAX_PIXELS / 1e6:.0f} megapixels"
            )
        if (height, width) != mask.shape:
            resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
            mask = resized.astype(np.uint8, copy=False)
        if self.crop is None:
            return mask
        rows, columns = self.crop
        if rows > height or columns > width:
            raise ArtifactNetError(
                f"{where}: a crop of {columns}x{rows} is larger than the mask of {width}x{height}"
            )
        top, left = (height - rows) // 2, (width - columns) // 2
        return np.ascontiguousarray(mask[top : top + rows, left : left + columns])

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize is not None:
            return self.resize
        if self.short_side is None:
            return height, width
        side = self.short_side
        if height < width:
            return side, int(width * side / height)
        return int(height * side / width), side


def read_folder(folder: str, size: tuple[int, int], threshold: int) -> BoolArray | None:
    """Union of all PNG masks of one image.

    Args:
        folder: may be missing.
        size: (height, width) every mask must have.
        threshold: pixels above it are predicted.

    Returns:
        (H, W), or None where nothing is predicted: no folder, no file, or not one pixel.

    Raises:
        ArtifactNetError: a file is no readable image, is transparent, or has another size; or
            the folder holds images, but none is called ``*.png``.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise ArtifactNetError(f"{folder}: must be a folder with the masks of one image") from None
    masks = sorted(name for name in names if name.endswith(".png"))
    others = sorted(name for name in names if Path(name).suffix.lower() in EXTENSIONS)
    if others and not masks:
        raise ArtifactNetError(f"{os.path.join(folder, others[0])}: masks must be called *.png")
    union = np.zeros(size, dtype=np.bool_)
    for name in masks:
        union |= _read_gray(os.path.join(folder, name), size) > threshold
    return union if union.any() else None


def _read_gray(path: str, size: tuple[int, int]) -> UInt8Array:
    """(H, W) gray values; colours by their luminance, 16 bit by their high byte."""
    try:
        with Image.open(path) as image:
            if (image.height, image.width) != size:
                raise ArtifactNetError(
                    f"{path}: the mask is {image.width}x{image.height}, but {size[1]}x{size[0]} "
                    "is expected"
                )
            if image.has_transparency_data:
                if np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                    raise ArtifactNetError(
                        f"{path}: a mask must not be transparent; save it as plain gray"
                    )
            elif image.mode == "L":
                return np.asarray(image)
            rgb = decode(image, path)
    except ArtifactNetError:
        raise
    except Exception as error:  # decoders raise many types on damaged files
        raise ArtifactNetError(f"{path}: not a readable image ({error})") from error
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
