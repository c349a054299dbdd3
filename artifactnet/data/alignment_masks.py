"""What attention is aligned with instead of the annotated artifacts (X-AIGD Sec. 6, Table 14).

Controls of the alignment experiment: a random polygon, the largest segment without artifacts, or
what is salient. Only annotated fakes with artifacts get another mask; all other images keep theirs.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from artifactnet.config import AlignmentConfig
from artifactnet.data.geometry import resample
from artifactnet.data.heatmaps import HeatmapFolder, read_gray, write_map
from artifactnet.data.images import decode_levels
from artifactnet.data.sources.base import Source
from artifactnet.files import atomic_path
from artifactnet.names import unsafe_name
from artifactnet.taxonomy import UNCATEGORIZED_BIT
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample, UInt8Array

MASKS = ("artifact", "random", "benign", "saliency")
AREA = (0.01, 0.5)  # of an image: limits of the area of a random polygon and of built-in saliency
_CORNERS = 8
_RADII = (0.5, 1.0)
_AREA_TOLERANCE = 0.05  # relative
_HALVINGS, _DRAWS = 30, 100
_SET = 128  # of a mask or map made elsewhere: a pixel counts from here on, of 255
_SPECTRUM_SIDE, _SPECTRUM_SIGMA = 64, 2.5  # Hou & Zhang 2007, pixels
_FELZENSZWALB = {"scale": 100, "sigma": 0.8}
_LEAST_SEGMENT = 0.005  # of the pixels


class AlignmentMasks:
    """The mask that the attention of an image is aligned with.

    Args:
        config: ``mask``, and the folders it needs.
        seed: of the run; a random polygon depends on it, on generator and uid alone.
        records: the images; of a folder, at least one of them must have a file.

    Raises:
        ArtifactNetError: a folder is missing, or holds no file of any of these images.
    """

    def __init__(self, config: AlignmentConfig, seed: int, records: Sequence[Record]) -> None:
        self._kind, self._seed = config.mask, seed
        self._segments: Path | None = None
        self._saliency: HeatmapFolder | None = None
        marked = [record for record in records if record.annotation is Annotation.MASK]
        if config.mask == "benign":
            assert config.segments is not None  # a rule of the config
            self._segments = Path(config.segments)
            if not any(_has_segments(self._segments, record) for record in marked):
                raise ArtifactNetError(
                    f"loss.alignment.segments={config.segments}: it holds no segments of any "
                    "annotated training image; they are called GENERATOR/UID.png (labels), or "
                    "GENERATOR/UID/*.png (masks)"
                )
        if config.mask == "saliency" and config.saliency is not None:
            key = "loss.alignment.saliency"
            self._saliency = HeatmapFolder(Path(config.saliency), key)
            if not any(self._saliency.has(record) for record in marked):
                raise ArtifactNetError(
                    f"{key}={config.saliency}: it holds no map of any annotated training image; "
                    "a map is called like its image, or GENERATOR/UID.png"
                )

    def replace(self, sample: Sample) -> Sample:
        """The sample with the other mask; as one that is not annotated, if there is none.

        Args:
            sample: with a mask, (H, W), of which a pixel at least is set.

        Raises:
            ArtifactNetError: the image's segments or map cannot be used.
        """
        assert sample.mask is not None
        chosen = self._choose(sample, sample.mask != 0)
        if chosen is None:
            record = replace(sample.record, annotation=Annotation.NONE)
            return replace(sample, mask=None, record=record)
        return replace(sample, mask=chosen.astype(np.uint8) * np.uint8(UNCATEGORIZED_BIT))

    def _choose(self, sample: Sample, artifacts: npt.NDArray[np.bool_]) -> Any:
        record, area = sample.record, int(artifacts.sum())
        size = (artifacts.shape[0], artifacts.shape[1])
        if self._kind == "random":
            name = f"{self._seed}\nrandom-mask\n{record.generator}\n{record.uid}"
            digest = sha256(name.encode("utf-8", "surrogateescape")).digest()
            rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "big")))
            return random_polygon(size, area, rng)
        if self._segments is not None:
            return largest_benign_segment(_read_segments(self._segments, record, size), artifacts)
        if self._saliency is None:
            return spectral_saliency(sample.image, area)
        if not self._saliency.has(record):
            return None
        salient = resample(self._saliency.read(record, size), size) >= np.float32(_SET / 255)
        return salient if salient.any() else None


def random_polygon(
    size: tuple[int, int], area: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_] | None:
    """A convex polygon of about the given area at a uniform place, all of it inside.

    The hull of eight points at uniform angles and radii, scaled by bisection; an area outside
    `AREA` is clipped. The paper gives neither shape nor size: our reading.

    Args:
        size: height and width of the image, pixels.
        area: pixels.
        rng: drawn from until a polygon fits.

    Returns:
        (H, W); a pixel counts if its centre is inside. None after a hundred polygons that do not
        fit, as in an image of a few pixels.
    """
    height, width = size
    wanted = min(max(area, AREA[0] * height * width), AREA[1] * height * width)
    for _ in range(_DRAWS):
        angles = np.sort(rng.uniform(0, 2 * math.pi, _CORNERS))
        radii, place = rng.uniform(*_RADII, _CORNERS), rng.uniform(size=2)
        points = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        hull = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
        hull -= hull.min(axis=0)
        low, high = 0.0, float(np.min([width, height] / hull.max(axis=0)))
        for _ in range(_HALVINGS):
            scale = (low + high) / 2
            corner = place * ([width, height] - scale * hull.max(axis=0))
            left, right = _row_spans(scale * hull + corner, height)
            filled = int((right - left).sum())
            if abs(filled - wanted) <= _AREA_TOLERANCE * wanted:
                columns = np.arange(width)
                inside = (columns >= left[:, None]) & (columns < right[:, None])
                return np.asarray(inside, dtype=bool)
            low, high = (scale, high) if filled < wanted else (low, scale)
    return None


def _row_spans(
    polygon: npt.NDArray[np.float64], height: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First column, and the one after the last, whose pixel centres are inside, for every row."""
    rows = np.arange(height) + 0.5
    start, end = polygon, np.roll(polygon, -1, axis=0)
    first, last = np.full(height, np.inf), np.full(height, -np.inf)
    for (x0, y0), (x1, y1) in zip(start, end, strict=True):
        crosses = (rows >= min(y0, y1)) & (rows < max(y0, y1))
        crossing = x0 + (rows[crosses] - y0) * (x1 - x0) / (y1 - y0) if crosses.any() else []
        first[crosses] = np.minimum(first[crosses], crossing)
        last[crosses] = np.maximum(last[crosses], crossing)
    empty = ~np.isfinite(first)
    first[empty] = last[empty] = 0.5
    left = np.ceil(first - 0.5).astype(np.int64)
    return left, np.maximum(left, np.ceil(last - 0.5).astype(np.int64))


def largest_benign_segment(
    segments: npt.NDArray[Any] | Sequence[npt.NDArray[np.bool_]],
    artifacts: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_] | None:
    """The largest segment that shares no pixel with an artifact; of equal ones the first.

    Args:
        segments: (H, W) integer labels, 0: no segment; or (H, W) masks, which may overlap.
        artifacts: (H, W).

    Returns:
        (H, W), or None if every segment holds artifact.
    """
    if isinstance(segments, np.ndarray):
        sizes = np.bincount(segments.ravel())
        sizes[np.unique(segments[artifacts])] = 0
        sizes[0] = 0
        label = int(sizes.argmax())
        return None if sizes[label] == 0 else segments == label
    free = [mask for mask in segments if mask.any() and not (mask & artifacts).any()]
    return max(free, key=np.count_nonzero, default=None)  # of equals the first


def spectral_saliency(image: UInt8Array, area: int) -> npt.NDArray[np.bool_] | None:
    """The most salient pixels by the spectral residual (Hou & Zhang 2007).

    What a 64 pixel log spectrum has above its 3 x 3 mean, transformed back, squared and blurred.

    Args:
        image: (H, W, 3) sRGB.
        area: how many pixels, clipped to `AREA`.

    Returns:
        (H, W), or None if the image is of one colour.
    """
    height, width = image.shape[:2]
    gray: UInt8Array = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
    if gray.min() == gray.max():
        return None
    side = (_SPECTRUM_SIDE, _SPECTRUM_SIDE)
    spectrum = np.fft.fft2(resample(gray, side).astype(np.float64))
    logarithm = np.log(np.abs(spectrum) + 1e-8)
    residual = logarithm - cv2.blur(logarithm, (3, 3))
    salient = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    salient = cv2.GaussianBlur(salient, (0, 0), _SPECTRUM_SIGMA)
    full = resample(salient.astype(np.float32), (height, width))
    low, high = (max(1, round(share * height * width)) for share in AREA)
    chosen = np.argsort(-full.ravel(), kind="stable")[: min(max(area, low), high)]
    mask = np.zeros(height * width, dtype=bool)
    mask[chosen] = True
    return mask.reshape(height, width)


def felzenszwalb_labels(image: UInt8Array) -> npt.NDArray[np.int64]:
    """Segments by colour (Felzenszwalb & Huttenlocher 2004): (H, W) labels from 1.

    They stand in for those of a segmentation model, with which X-AIGD finds benign regions.
    """
    from skimage.segmentation import felzenszwalb

    least = max(1, round(_LEAST_SEGMENT * image.shape[0] * image.shape[1]))
    labels: npt.NDArray[np.int64] = felzenszwalb(image, min_size=least, **_FELZENSZWALB)
    return labels.astype(np.int64) + 1


def count_without_mask(source: Source, masks: AlignmentMasks) -> int:
    """Images with artifacts for which there is no other mask; all of them are decoded.

    Raises:
        ArtifactNetError: an image cannot be used.
    """
    marked = (i for i, r in enumerate(source.records) if r.annotation is Annotation.MASK)
    samples = (source.load(index) for index in marked)
    return sum(
        masks.replace(sample).mask is None
        for sample in samples
        if sample.mask is not None and sample.mask.any()
    )


Segments = npt.NDArray[Any] | list[npt.NDArray[np.bool_]]  # labels, or masks that may overlap


def write_segments(source: Source, folder: Path, segment: Callable[[UInt8Array], Segments]) -> None:
    """Write the segments of all images with artifacts that have none in a folder yet.

    Labels become ``GENERATOR/UID.png``, 16 bits, masks ``GENERATOR/UID/NUMBER.png``.

    Args:
        source: the images.
        folder: is made.
        segment: (H, W) labels from 1 of an (H, W, 3) image, or (H, W) masks.

    Raises:
        ArtifactNetError: an image cannot be used, or its generator or uid cannot name a file.
    """
    for index, record in enumerate(source.records):
        if record.annotation is Annotation.MASK and not _has_segments(folder, record):
            found, path = segment(source.load(index).image), _segment_path(folder, record)
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(found, np.ndarray):
                _write_labels(path, found)
            else:
                _write_masks(path.with_suffix(""), found)


def _write_labels(path: Path, labels: npt.NDArray[Any]) -> None:
    done, content = cv2.imencode(".png", labels.astype(np.uint16))
    assert done
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.tobytes())


def _write_masks(folder: Path, masks: Sequence[npt.NDArray[np.bool_]]) -> None:
    """Write all masks of an image, or none of them; several processes may write the same."""
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    unfinished.mkdir(exist_ok=True)
    try:
        for number, mask in enumerate(masks):
            write_map(unfinished / f"{number:04d}.png", mask.astype(np.uint8) * np.uint8(255))
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _segment_path(folder: Path, record: Record) -> Path:
    """Where the labels of an image are; its masks are in the folder of that name without suffix."""
    parts = (record.generator, *record.uid.split("/"))
    for part in parts:
        problem = unsafe_name(part)
        if problem is not None:
            raise ArtifactNetError(
                f"{record.location}: no file of segments can be called after it: {part!r} {problem}"
            )
    return folder.joinpath(*parts[:-1], f"{parts[-1]}.png")


def _has_segments(folder: Path, record: Record) -> bool:
    path = _segment_path(folder, record)
    return path.is_file() or path.with_suffix("").is_dir()


def _read_segments(
    folder: Path, record: Record, size: tuple[int, int]
) -> npt.NDArray[np.int64] | list[npt.NDArray[np.bool_]]:
    """(H, W) labels, or masks, of an image of a size; no masks if it has no file.

    Raises:
        ArtifactNetError: a file cannot be read, has no labels, or another size than the image.
    """
    path = _segment_path(folder, record)
    if path.is_file():
        labels, lossy = decode_levels(path, str(path))
        if lossy or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise ArtifactNetError(
                f"{path}: labels are whole numbers from 0 in a PNG of 8 or 16 bits"
            )
        _check_size(path, labels.shape, size)
        return labels.astype(np.int64)
    masks = []
    for file in sorted(path.with_suffix("").glob("*.png")):
        mask = read_gray(file, str(file)) >= _SET
        _check_size(file, mask.shape, size)
        masks.append(mask)
    return masks


def _check_size(path: Path, found: tuple[int, ...], image: tuple[int, int]) -> None:
    if found != image:
        raise ArtifactNetError(
            f"{path}: it is {found[1]}x{found[0]}, its image {image[1]}x{image[0]}; save segments "
            "at the size of the image"
        )
