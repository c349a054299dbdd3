"""AbHuman (HumanRefiner, Fang et al. 2024) and its like: AI images with defects as masks or boxes.

Two layouts are read:

- masks: a folder of gray PNGs, each of the size and file stem of its image, 255 = defect;
- boxes: one JSON file in COCO's form: ``images`` ([{id, file_name, width, height}]; the sizes
  may be absent) and ``annotations`` ([{image_id, bbox: [x, y, width, height]}], pixels).

Regions become masks without category (bit 0), and heatmaps by `soften_mask`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from artifactnet.data.converters.coco_boxes import CocoImage, draw_boxes, read_boxes
from artifactnet.data.converters.common import Conversion, ManifestWriter
from artifactnet.data.heatmaps import soften_mask
from artifactnet.data.image_files import list_images
from artifactnet.data.image_folders import ImageFolder
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.masks import read_mask
from artifactnet.types import Annotation, ArtifactNetError, UInt8Array

_Annotation = Path | CocoImage  # of one image: its mask file, or its boxes


def convert_abhuman(
    source: Path,
    images: Path,
    out: Path,
    *,
    name: str = "abhuman",
    generator: str = "abhuman",
    overwrite: bool = False,
) -> Conversion:
    """Make a manifest of images with defect masks or boxes (layouts: see the module's text).

    An image with an empty mask, or listed without a box, is annotated and clean. An image of the
    folder that has no mask, or that the JSON file does not list, is not annotated. The uid of an
    image is ``NAME/PATH``, its path below the folder without suffix. Masks are of images as they
    are shown, EXIF rotation applied; boxes in an image that EXIF turns may be of either, and are
    not used. Arguments: see `convert_dataset`.

    Raises:
        ArtifactNetError: the source is neither, or malformed; a mask or stated size differs from
            its image; nothing can be used; ``out`` lies inside a folder that is read; the generator
            is ``real``; or the manifest exists.
    """
    writer = ManifestWriter(out, name, overwrite, inputs=[images, source], generator=generator)
    folder = ImageFolder(images)
    entries: Iterable[tuple[str, str, _Annotation]]
    if source.is_dir():
        if source.resolve().is_relative_to(images.resolve()):
            raise ArtifactNetError(
                f"{source}: the masks lie inside the folder of images and would be taken for "
                "images; give folders beside each other"
            )
        missing, unlisted = f"masks have no image in {images}", "images have no mask: not annotated"
        entries = ((name, path, Path(path)) for name, path in list_images(source, folder.skipped))
    elif source.is_file():
        missing = f"images are not in {images}"
        unlisted = f"images are not in {source}: not annotated"
        entries = ((entry.image, entry.where, entry) for entry in read_boxes(source))
    else:
        raise ArtifactNetError(f"{source}: no such folder of masks, nor JSON file of boxes")

    def add(path: str, mask: UInt8Array | None) -> None:
        uid = f"{name}/{folder.stem(path)}"
        line = ManifestLine(path, uid, 1, Annotation.NONE, None, generator)
        heatmap = None if mask is None else np.rint(soften_mask(mask) * 255).astype(np.uint8)
        writer.add(line, folder.key(path), heatmap=heatmap, mask=mask)

    for image, where, annotation in entries:
        path = folder.find(image)
        if path is None:
            writer.leave_out(missing, image)
            continue
        writer.claim(path, where)
        size = writer.size(path, image)
        if size is not None:
            add(path, _draw_mask(path, size, annotation, writer))
    for path in folder.paths:
        if path not in writer.claimed:
            writer.leave_out(unlisted, path)
            add(path, None)
    return writer.finish(source, folder.skipped.describe(images))


def _draw_mask(
    path: str, size: tuple[int, int], annotation: _Annotation, writer: ManifestWriter
) -> UInt8Array | None:
    """Mask of an image; None, noted, where its places in the image are not known."""
    if isinstance(annotation, Path):
        return read_mask(annotation, size, path)
    if writer.is_turned(path):
        return None
    annotation.check_size(size, path)
    return draw_boxes(annotation.boxes, size, annotation.where)
