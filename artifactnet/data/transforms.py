"""From a decoded sample to model-size tensors: the model's own preprocessing, augmentation.

Image, bit-field mask and soft heatmap go through one geometry, so they stay aligned. The
only importer of albumentations, which is heavy and therefore imported on first use.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from artifactnet.config import AugmentConfig
from artifactnet.data.geometry import (
    POLICIES,
    Box,
    Geometry,
    fit_geometry,
    pad_to_frame,
    random_window,
    resample,
    resample_nearest,
    restore_map,
)
from artifactnet.data.images import JPEG_SIDE
from artifactnet.types import (
    UNSEEN_SIGMA,
    Annotation,
    ArtifactNetError,
    Float32Array,
    Record,
    Sample,
    TeacherAnswer,
    UInt8Array,
)

CROP_TRIES = 10  # of the category-ratio rule, as in mmsegmentation's RandomCrop
_BLUR = (0.3, 1.5)  # pixels: standard deviations of a Gaussian blur
_RESAVED = (0.5, 1.0)  # scales of an image between its two compressions
_WEBP_SIDE = 16383  # the longest side that WebP holds, pixels
_TEACHER_MAPS = ("teacher_heatmap", "teacher_sigma")
_BITS = (np.arange(256)[:, None] >> np.arange(8)) & 1  # (256, 8): which bits a value holds


@dataclass(slots=True)
class Example:
    """One sample at model size, ready to be collated."""

    image: Tensor  # (3, H, W) float32, normalised; padding is 0, which is the mean colour
    mask: Tensor  # (H, W) uint8 bit field; all zero unless the annotation is MASK
    heatmap: Tensor  # (H, W) float32 in [0, 1]; zeros where the sample has none
    score: float  # plausibility in [0, 1]; NaN where unknown
    record: Record
    teacher: TeacherAnswer | None = None  # its maps at model size


class Preprocess:
    """A model's own deterministic preprocessing; saved with it and undone by `restore`.

    Args:
        image_size: height and width the model takes, pixels.
        resize: one of `artifactnet.data.geometry.POLICIES`, see `fit_geometry` there.
        mean, std: per channel, for pixel values in [0, 1]; std > 0.
        min_side: images with a shorter side, pixels, are refused: the model's patch, since a
            smaller image holds nothing that the model could look at.

    Raises:
        ValueError: an unknown policy, or numbers that cannot be used.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        resize: str,
        mean: Sequence[float],
        std: Sequence[float],
        min_side: int = 1,
    ) -> None:
        if resize not in POLICIES:
            raise ValueError(f"unknown resize policy {resize!r}; known: {', '.join(POLICIES)}")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"need 3 means and 3 positive stds, got {mean} and {std}")
        height, width = image_size
        self.size = (int(height), int(width))
        self.resize = resize
        self._mirror = resize == "reflect"  # image, mask and heatmap alike
        self.min_side = min_side
        scale = (1 / (255 * np.asarray(std, dtype=np.float64))).astype(np.float32)
        shift = (np.asarray(mean, np.float64) / np.asarray(std)).astype(np.float32)
        # (256, 1, 3): what each level becomes; looking up is faster than computing
        self._levels: Any = np.arange(256, dtype=np.float32)[:, None, None] * scale - shift

    def image(self, image: UInt8Array) -> tuple[Tensor, Geometry]:
        """Bring an (H0, W0, 3) uint8 sRGB image to model size.

        Returns:
            (3, H, W) float32 normalised tensor, and the geometry that `restore` needs.

        Raises:
            ArtifactNetError: the image is too small.
            ValueError: not a non-empty (H0, W0, 3) uint8 array.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ValueError(
                f"expected a (height, width, 3) uint8 image, got {image.dtype} {image.shape}"
            )
        problem = self._too_small(image)
        if problem is not None:
            raise ArtifactNetError(problem)
        geometry = fit_geometry(image.shape[:2], self.size, self.resize)
        return self.place(image, geometry), geometry

    def _too_small(self, image: UInt8Array) -> str | None:
        height, width = image.shape[:2]
        if min(height, width) >= self.min_side:
            return None
        return (
            f"an image of {width}x{height} pixels is too small for one patch of the model "
            f"({self.min_side}x{self.min_side}); leave it out or use a larger original"
        )

    def place(self, image: UInt8Array, geometry: Geometry) -> Tensor:
        """Normalised (3, H, W) tensor of an image under any geometry, at its frame's size."""
        pixels = resample(image[geometry.source.slices], geometry.target.size, grow=cv2.INTER_CUBIC)
        content: Any = cv2.LUT(pixels, self._levels)
        frame = pad_to_frame(content, geometry, self._mirror).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(frame))

    def mask(self, mask: UInt8Array, geometry: Geometry) -> UInt8Array:
        """(H0, W0) bit field to (H, W) by nearest neighbour; padded as the image is."""
        seen = resample_nearest(mask[geometry.source.slices], geometry.target.size)
        return pad_to_frame(seen, geometry, self._mirror)

    def heatmap(self, heatmap: Float32Array, geometry: Geometry) -> Float32Array:
        """(H0, W0) soft map in [0, 1] to (H, W), linear or by area; padded as the image is."""
        seen = resample(heatmap[geometry.source.slices], geometry.target.size)
        return pad_to_frame(np.clip(seen, 0.0, 1.0), geometry, self._mirror)

    def restore(self, heatmap: Float32Array, geometry: Geometry) -> Float32Array:
        """(h, w) map on the model's grid to (H0, W0), see `restore_map` in `data.geometry`."""
        return restore_map(heatmap, geometry)

    def sample(self, sample: Sample) -> Example:
        """Example of a sample as evaluation sees it; raises as `place_sample`."""
        geometry = fit_geometry(sample.image.shape[:2], self.size, self.resize)
        return self.place_sample(sample, geometry)

    def place_sample(self, sample: Sample, geometry: Geometry) -> Example:
        """Example of a sample under any geometry, at the size of its frame.

        Raises:
            ArtifactNetError: an image below ``min_side``, a mask or heatmap of another size than
                the image, or a mask that contradicts the annotation state; the message names the
                image.
        """
        _check(sample)
        problem = self._too_small(sample.image)
        if problem is not None:
            raise ArtifactNetError(f"{sample.record.location}: {problem}")
        mask, heatmap = np.zeros(geometry.size, np.uint8), np.zeros(geometry.size, np.float32)
        if sample.mask is not None:
            mask = self.mask(sample.mask, geometry)
        if sample.heatmap is not None:
            heatmap = self.heatmap(sample.heatmap, geometry)
        teacher = sample.teacher
        if teacher is not None:  # what it never saw (padding) is clean and unsure
            sigma = resample(teacher.sigma[geometry.source.slices], geometry.target.size)
            sigma = pad_to_frame(sigma, geometry, self._mirror)
            sigma = np.where(sigma > 0, sigma, np.float32(UNSEEN_SIGMA))
            heatmap_of_teacher = self.heatmap(teacher.heatmap, geometry)
            teacher = replace(teacher, heatmap=heatmap_of_teacher, sigma=sigma)
        return Example(
            self.place(sample.image, geometry),
            torch.from_numpy(mask),
            torch.from_numpy(heatmap),
            math.nan if sample.score is None else sample.score,
            sample.record,
            teacher,
        )


def _check(sample: Sample) -> None:
    """Refuse a sample whose parts do not belong together."""
    where = sample.record.location
    teacher = sample.teacher
    for name, array in (
        ("mask", sample.mask),
        ("heatmap", sample.heatmap),
        ("teacher's heatmap", None if teacher is None else teacher.heatmap),
        ("teacher's sigma", None if teacher is None else teacher.sigma),
    ):
        if array is not None and array.shape != sample.image.shape[:2]:
            raise ArtifactNetError(
                f"{where}: the {name} has shape {array.shape}, the image "
                f"{sample.image.shape[:2]}; they must be equal"
            )
    if (sample.mask is not None) != (sample.record.annotation is Annotation.MASK):
        has = "has no" if sample.mask is None else "has a"
        raise ArtifactNetError(
            f"{where}: annotation is {sample.record.annotation.name} but the sample {has} mask"
        )


class TrainTransform:
    """Training augmentation (X-AIGD Sec. 5 and 6): JPEG, flips, random resize and crop.

    Stateless: the result depends on the sample and the seed alone, not on the worker process.
    ``augment.jpeg_on=auto`` compresses both classes; `DataModule` replaces it by what
    `artifactnet.data.checks.choose_jpeg_classes` finds in the files.

    Raises:
        ArtifactNetError: a key that needs crops is set but ``crop`` is off.
    """

    def __init__(self, augment: AugmentConfig, preprocess: Preprocess) -> None:
        if not augment.crop:
            if list(augment.scale) != [1.0, 1.0]:
                raise ArtifactNetError(
                    f"data.augment.scale={list(augment.scale)} needs data.augment.crop=true: "
                    "without a crop the model's own resize would undo it"
                )
            for key in ("crop_size", "crop_artifact"):
                if getattr(augment, key):
                    raise ArtifactNetError(f"data.augment.{key} needs data.augment.crop=true")
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else its import asks the network
        import albumentations as A  # takes seconds

        self._augment = augment
        self._preprocess = preprocess
        flips = [A.HorizontalFlip(p=augment.hflip), A.VerticalFlip(p=augment.vflip)]
        maps = dict.fromkeys(("heatmap", "focus", *_TEACHER_MAPS), "mask")
        turn = A.RandomRotate90(p=augment.rotate)
        self._flip = A.Compose([*flips, turn], additional_targets=maps)
        self._color: Any = None
        if augment.color:
            low, high = 1 - 0.4 * augment.color, 1 + 0.4 * augment.color
            jitter = A.ColorJitter((low, high), (low, high), (low, high), hue=(0, 0), p=1.0)
            gamma = A.RandomGamma(gamma_limit=(round(100 * low), round(100 * high)), p=1.0)
            self._color = A.Compose([jitter, gamma])
        self._jpeg: Any = None
        self._webp: Any = None
        if augment.jpeg_quality and augment.jpeg_on != "none":
            low, high = augment.jpeg_quality
            self._jpeg = A.Compose([A.ImageCompression(quality_range=(low, high), p=1.0)])
            webp = A.ImageCompression("webp", quality_range=(low, high), p=1.0)
            self._webp = A.Compose([webp])
        self._blur: Any = None
        if augment.blur:
            self._blur = A.Compose([A.GaussianBlur(0, sigma_limit=_BLUR, p=augment.blur)])

    def __call__(self, sample: Sample, seed: int, focus: UInt8Array | None = None) -> Example:
        """Augment one sample, which is left unchanged; ``seed`` is non-negative.

        Colour, blur and compression come first, at the original size, as if the file had been saved
        that way.
        ``focus`` is the (H, W) mask that ``crop_artifact`` goes by: that of the image's twin, or
        None: its own.

        Raises:
            ArtifactNetError: the sample contradicts itself, see `Preprocess.place_sample`.
        """
        _check(sample)
        # One state for all steps: `set_random_seed` would give each of them the same numbers,
        # and an image would be flipped vertically exactly when it is flipped horizontally.
        rng, state = np.random.default_rng(seed), random.Random(seed)
        for pipeline in (self._color, self._jpeg, self._webp, self._blur, self._flip):
            if pipeline is not None:
                pipeline.set_random_state(rng, state)
        if self._color is not None:
            sample = replace(sample, image=self._color(image=sample.image)["image"])
        if self._blur is not None:
            sample = replace(sample, image=self._blur(image=sample.image)["image"])
        image = self._compress(sample, rng)
        if focus is not None and focus.shape != image.shape[:2]:
            focus = None  # the twin is of another size, so a place in it is none in this image
        arrays = {"image": image, "mask": sample.mask, "heatmap": sample.heatmap, "focus": focus}
        teacher = sample.teacher
        if teacher is not None:
            arrays |= dict(zip(_TEACHER_MAPS, (teacher.heatmap, teacher.sigma), strict=True))
        flipped = self._flip(**{name: array for name, array in arrays.items() if array is not None})
        focus = flipped.pop("focus", None)
        if teacher is not None:
            heatmap, sigma = (flipped.pop(name) for name in _TEACHER_MAPS)
            flipped["teacher"] = replace(teacher, heatmap=heatmap, sigma=sigma)
        sample = replace(sample, **flipped)
        focus = sample.mask if focus is None else focus
        geometry = self._geometry(sample.image.shape[:2], focus, rng)
        return self._preprocess.place_sample(sample, geometry)

    @property
    def uses_focus(self) -> bool:
        """Whether a twin's mask can change the result: without crops it cannot."""
        return self._augment.crop

    def _compress(self, sample: Sample, rng: np.random.Generator) -> UInt8Array:
        """The image after it was saved once or twice, if images of its class are compressed."""
        augment, image = self._augment, sample.image
        if self._jpeg is None or (augment.jpeg_on == "fake" and sample.record.label == 0):
            return image
        side = max(image.shape)
        if side > JPEG_SIDE:
            raise ArtifactNetError(
                f"{sample.record.location}: a side of {side} pixels is more than JPEG holds "
                f"({JPEG_SIDE}); shrink the image or set data.augment.jpeg_on=none"
            )
        # the order of these draws decides what a seed means
        if augment.resave and rng.random() < augment.resave:
            image = _resized_there_and_back(self._save(image, rng), rng.uniform(*_RESAVED))
        return self._save(image, rng)

    def _save(self, image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        """The image after a JPEG, or WebP, of random quality."""
        webp = self._augment.webp > 0 and rng.random() < self._augment.webp
        saved = self._webp if webp and max(image.shape) <= _WEBP_SIDE else self._jpeg
        # ImageCompression hands the array to OpenCV as it is, and OpenCV takes it for BGR: RGB
        # would be weighted wrongly between luma and chroma, unlike in any real JPEG file.
        swapped = np.ascontiguousarray(image[:, :, ::-1])
        return np.ascontiguousarray(saved(image=swapped)["image"][:, :, ::-1])

    def _geometry(
        self, original: tuple[int, int], mask: UInt8Array | None, rng: np.random.Generator
    ) -> Geometry:
        """The model's own policy, or a random window that obeys the category-ratio rule.

        With ``crop_artifact`` only windows that hold artifact are tried where there is any, so
        that rule chooses among these.
        """
        augment = self._augment
        if not augment.crop:
            return fit_geometry(original, self._preprocess.size, self._preprocess.resize)
        height, width = augment.crop_size or self._preprocess.size
        low, high = augment.scale
        scale = rng.uniform(low, high)
        marked: Any = ()
        if augment.crop_artifact and mask is not None:
            marked = np.flatnonzero(mask)

        def draw() -> Geometry:
            if len(marked) == 0:
                return random_window(original, (height, width), scale, rng)
            row, column = divmod(int(rng.choice(marked)), original[1])
            return window_around((row, column), original, (height, width), scale, rng)

        window = draw()
        for _ in range(CROP_TRIES):
            # An unmarked image is all background: mmsegmentation tries in vain and keeps the
            # last window, which is as random as the first.
            if mask is None or passes_category_ratio(
                mask[window.source.slices], augment.max_category_ratio
            ):
                break
            window = draw()
        return window


def _resized_there_and_back(image: UInt8Array, scale: float) -> UInt8Array:
    """The image scaled down and up again, as a screenshot of a smaller view is."""
    height, width = image.shape[:2]
    small = (max(1, round(scale * height)), max(1, round(scale * width)))
    return resample(resample(image, small), (height, width), grow=cv2.INTER_CUBIC)


def window_around(
    pixel: tuple[int, int],
    original: tuple[int, int],
    size: tuple[int, int],
    scale: float,
    rng: np.random.Generator,
) -> Geometry:
    """A `random_window` that holds a pixel; every window that does is equally likely.

    Args:
        pixel: row and column in the original.
        original, size: height and width of the image and of the frame, pixels.
        scale: resize factor of both sides, > 0. Where it shrinks the image, nearest-neighbour
            resizing of a mask may still pass over a pixel that stands alone.
        rng: drawn from three times per axis, whatever the sizes.
    """
    window = random_window(original, size, scale, rng)
    starts = [
        int(rng.integers(max(0, at - cut + 1), min(at, was - cut) + 1))
        for at, cut, was in zip(pixel, window.source.size, original, strict=True)
    ]
    return replace(window, source=Box(starts[0], starts[1], *window.source.size))


def passes_category_ratio(mask: UInt8Array, max_ratio: float) -> bool:
    """Whether a crop passes the category-ratio rule (mmsegmentation's ``cat_max_ratio``).

    At least two classes are present and the largest holds less than ``max_ratio`` of the pixels of
    the (H, W) bit field. Background is a class; a pixel of several categories counts for each of
    them (our reading: the original rule knows no overlap). A ratio of 1 or more switches the rule
    off.
    """
    if max_ratio >= 1:
        return True
    histogram = np.bincount(mask.ravel(), minlength=256)
    counts = np.append(histogram @ _BITS, histogram[0])
    return bool((counts > 0).sum() > 1 and counts.max() < max_ratio * counts.sum())
