"""AbHuman (HumanRefiner, Fang et al. 2024) and its like: AI images with defects as masks or boxes.

Two layouts are read:

- masks: a folder of gray PNGs, each of the size and file stem of its image, 255 = defect;
- boxes: one JSON file in COCO's form: ``images`` ([{id, file_name, width, height}]; the sizes
  may be absent) and ``annotations`` ([{image_id, bbox: [x, y, width, height]}], pixels).

Regions become masks without category (bit 0), and heatmaps by `artifactnet.data.heatmaps.soften_mask`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from artifactnet.data.converters.coco import draw_boxes, read_boxes
from artifactnet.data.converters.common import Conversion, ManifestWriter
from artifactnet.data.heatmaps import soften_mask
from artifactnet.data.image_folders import ImageFolder, list_images
from artifactnet.data.images import shown_size
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.masks import read_mask
from artifactnet.types import Annotation, ArtifactNetError, UInt8Array

_TURNED = "images are turned by EXIF, so where their boxes lie is not known: not annotated"


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
    image is ``NAME/PATH``, its path below the folder without suffix. Masks are of images as
    they are shown, EXIF rotation applied; boxes in an image that EXIF turns may be of either, and
    are not used.

    Args:
        source: the folder of masks, or the JSON file of boxes.
        images: folder of the images, searched deeply; each is found by path, else by file stem.
        out: see `artifactnet.data.converters.common.ManifestWriter`, as for ``name`` and ``overwrite``.
        name: of the manifest.
        generator: written into every line.
        overwrite: replace the manifest.

    Raises:
        ArtifactNetError: the source is neither, or malformed; a mask or stated size differs from
            its image; nothing can be used; ``out`` lies inside a folder that is read; the
            generator is ``real``; or the manifest exists.
    """
    output = ManifestWriter(out, name, overwrite, inputs=[images, source], generator=generator)
    folder = ImageFolder(images)
    if source.is_dir():
        _from_masks(source, folder, generator, output)
    elif source.is_file():
        _from_boxes(source, folder, generator, output)
    else:
        raise ArtifactNetError(f"{source}: no such folder of masks, nor JSON file of boxes")
    return output.finish(source, [])


def _from_masks(source: Path, folder: ImageFolder, generator: str, output: ManifestWriter) -> None:
    if source.resolve().is_relative_to(folder.folder.resolve()):
        raise ArtifactNetError(
            f"{source}: the masks lie inside the folder of images and would be taken for "
            "images; give folders beside each other"
        )
    used = set()
    for _, mask_path in list_images(source):
        name = str(Path(mask_path).relative_to(source))
        path = folder.find(name)
        if path is None:
            output.leave_out(f"masks have no image in {folder.folder}", name)
            continue
        if path in used:
            raise ArtifactNetError(f"{mask_path}: a second mask of {path}; keep one of them")
        used.add(path)
        size = output.size(path, name)
        if size is not None:
            _add(path, read_mask(mask_path, size, path), folder, generator, output)
    _add_others(used, folder, generator, output, "images have no mask: not annotated")


def _from_boxes(source: Path, folder: ImageFolder, generator: str, output: ManifestWriter) -> None:
    used = set()
    for name, stated, boxes, where in read_boxes(source):
        path = folder.find(name)
        if path is None:
            output.leave_out(f"images are not in {folder.folder}", name)
            continue
        if path in used:
            raise ArtifactNetError(f"{where}: {path} is listed twice; keep one of them")
        used.add(path)
        size = output.size(path, name)
        if size is None:
            continue
        if shown_size(path)[2]:
            output.leave_out(_TURNED, path)
            output.lines.append(_unknown(path, folder, generator, output))
            continue
        if stated is not None and stated != size:
            raise ArtifactNetError(
                f"{where}: {path} is {size[1]}x{size[0]}, its boxes are for {stated[1]}x{stated[0]}"
            )
        _add(path, draw_boxes(boxes, size, where), folder, generator, output)
    _add_others(used, folder, generator, output, f"images are not in {source}: not annotated")


def _add(
    path: str, mask: UInt8Array, folder: ImageFolder, generator: str, output: ManifestWriter
) -> None:
    """Line of an annotated image; its maps are stored."""
    key, uid = folder.key(path), f"{output.name}/{folder.stem(path)}"
    if not mask.any():
        output.lines.append(ManifestLine(path, uid, 1, Annotation.CLEAN, None, generator))
        return
    soft = np.rint(soften_mask(mask) * 255).astype(np.uint8)
    heatmap = output.store("heatmaps", key, soft, path)
    stored = output.store("masks", key, mask, path)
    output.lines.append(
        ManifestLine(path, uid, 1, Annotation.MASK, None, generator, heatmap, stored)
    )


def _add_others(
    used: set[str], folder: ImageFolder, generator: str, output: ManifestWriter, reason: str
) -> None:
    """Lines of the images that the annotation does not name."""
    for path in folder.paths:
        if path not in used:
            output.leave_out(reason, path)
            output.lines.append(_unknown(path, folder, generator, output))


def _unknown(
    path: str, folder: ImageFolder, generator: str, output: ManifestWriter
) -> ManifestLine:
    """Line of an image of which nothing is known."""
    uid = f"{output.name}/{folder.stem(path)}"
    return ManifestLine(path, uid, 1, Annotation.NONE, None, generator)
