"""Any data set of captioned boxes in COCO's form: regions and tags of AI images.

One JSON file: ``images`` ([{id, file_name, width, height, tags}]; sizes and tags may be absent),
``annotations`` ([{image_id, bbox: [x, y, width, height], caption, category_id}]) and, for
annotations without a caption, ``categories`` ([{id, name}]).
"""

from __future__ import annotations

from pathlib import Path

from artifactnet.data.converters.coco_boxes import CocoImage, read_boxes
from artifactnet.data.converters.common import Conversion, ManifestWriter, parse_foreign_tags
from artifactnet.data.image_folders import ImageFolder
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.regions import clip_region, parse_caption
from artifactnet.data.text import brief
from artifactnet.types import Annotation, ArtifactNetError, Region


def convert_coco(
    source: Path,
    images: Path,
    out: Path,
    *,
    name: str = "coco",
    generator: str = "fake",
    overwrite: bool = False,
) -> Conversion:
    """Make a manifest of captioned boxes (form: see the module's text).

    A caption is the annotation's ``caption``, else the name of its category. An image that is
    listed without a box is annotated and clean; one that is not listed, or that EXIF turns (its
    boxes may be of either orientation), is not annotated. The uid of an image is ``NAME/PATH``, its
    path below the folder without suffix. Arguments: see `convert_dataset`.

    Raises:
        ArtifactNetError: the file is malformed; a box reaches out of its image, has no caption, or
            one with a marker in it; a tag is unknown; a stated size differs from its image; or see
            `ManifestWriter`.
    """
    writer = ManifestWriter(out, name, overwrite, inputs=[images], generator=generator)
    folder = ImageFolder(images)

    def line_of(path: str, tags: tuple[str, ...] | None, where: str = "") -> ManifestLine:
        uid = f"{name}/{folder.stem(path)}"
        return ManifestLine(path, uid, 1, Annotation.NONE, None, generator, tags=tags, where=where)

    for entry in read_boxes(source):
        path, size = writer.find(folder, entry.image, entry.where)
        if path is None or size is None:
            continue
        writer.claim(path, entry.where)
        regions = None
        if not writer.is_turned(path):
            entry.check_size(size, path)
            regions = _regions(entry, size)
        writer.add_regions(line_of(path, _tags(entry), entry.where), regions)
    for path in folder.paths:
        if path not in writer.claimed:
            writer.leave_out(f"images are not in {source}: not annotated", path)
            if writer.size(path, path) is not None:
                writer.add_regions(line_of(path, None), None)
    return writer.finish(source, folder.skipped.describe(images))


def _regions(entry: CocoImage, size: tuple[int, int]) -> list[Region]:
    regions = []
    for annotation in entry.annotations:
        caption = parse_caption(
            annotation.caption, f"{annotation.where}: 'caption' (or the name of its category)"
        )
        x, y, width, height = annotation.box
        region = Region((x, y, x + width, y + height), caption)
        regions.append(clip_region(region, size, annotation.where))
    return regions


def _tags(entry: CocoImage) -> tuple[str, ...] | None:
    if entry.tags is None:
        return None
    if not isinstance(entry.tags, list):
        raise ArtifactNetError(f"{entry.where}: 'tags' must be a list, not {brief(entry.tags)}")
    return parse_foreign_tags(entry.tags, f"{entry.where}: 'tags'")
