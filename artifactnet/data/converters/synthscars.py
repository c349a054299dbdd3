"""SynthScars (LEGION, Kang et al. 2025): AI images with outlined and explained artifacts.

``{train,test}/annotations/{split}.json`` (its page spells ``annoations``) is a list of ``{"0":
{"img_file_name", "caption", "refs": [{"sentence", "explanation", "segmentation": [[x, y, x, y,
...], ...]}]}}``, in pixels; images are in ``{split}/images``. All are fakes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifactnet.data.converters.common import Conversion, ManifestWriter, hull
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.regions import are_coordinates, clip_region, parse_caption
from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.types import Annotation, ArtifactNetError, Region

SPLITS = ("train", "test")
FOLDERS = ("annotations", "annoations")


@dataclass(slots=True)
class _Picture:
    """What all items of a picture say."""

    where: str  # its first item
    items: int = 0
    unknown: bool = False  # whether a region had to be left out
    regions: list[tuple[Region, str]] = field(default_factory=list)  # with their places


def convert_synthscars(
    source: Path,
    images: Path,
    out: Path,
    *,
    name: str = "synthscars",
    generator: str = "synthscars",
    overwrite: bool = False,
) -> Conversion:
    """Make a manifest of SynthScars' folder, or of one of its splits.

    A region is the box around the outlines of a ref; its caption the ``explanation``, else the
    ``sentence``. Items of one picture are merged. Regions without area or caption, and those that
    two items of a picture have, are left out, counted and listed; a picture left without any is not
    annotated. So is one that EXIF turns: its outlines may be of either orientation. The uid of an
    image is ``NAME/SPLIT/STEM``. Arguments: see `convert_dataset`; ``images`` holds the split
    folders.

    Raises:
        ArtifactNetError: no JSON file, or a malformed item; a region reaches out of its image; or
            see `ManifestWriter`.
    """
    places = [source / split / folder / f"{split}.json" for split in SPLITS for folder in FOLDERS]
    found: dict[str, Path] = {}
    for place in places:
        if place.is_file():
            found.setdefault(place.stem, place)
    if not found:
        raise ArtifactNetError(
            f"{source}: holds neither train/annotations/train.json nor test/annotations/test.json; "
            "is this SynthScars?"
        )
    writer = ManifestWriter(out, name, overwrite, inputs=[source, images], generator=generator)
    warnings = [f"{source}: no annotations of split {s}" for s in SPLITS if s not in found]
    for split, file in found.items():
        pictures = _read(file, writer)
        merged = [image for image, picture in pictures.items() if picture.items > 1]
        if merged:
            what = "pictures have several items, which are merged"
            warnings.append(f"{split}: {len(merged)} {what}, e.g. {merged[0]}")
        for image, picture in pictures.items():
            where = picture.where
            path = str(images / split / "images" / image)
            if not os.path.isfile(path):
                writer.leave_out(f"images are not in {images / split / 'images'}", image)
                continue
            size = writer.size(path, where)
            if size is None:
                continue
            uid = f"{name}/{split}/{os.path.splitext(os.path.normpath(image))[0]}"
            line = ManifestLine(path, uid, 1, Annotation.NONE, split, generator, where=where)
            known = picture.regions or not picture.unknown
            if not known or writer.is_turned(path):
                writer.add_regions(line, None)
            else:
                writer.add_regions(line, [clip_region(r, size, at) for r, at in picture.regions])
    return writer.finish(source, warnings)


def _read(file: Path, writer: ManifestWriter) -> dict[str, _Picture]:
    """Name of each picture -> what its items say."""
    rows = parse_json(read_text(file), str(file))
    if not isinstance(rows, list):
        raise ArtifactNetError(f"{file}: must hold a list of items, not {brief(rows)}")
    pictures: dict[str, _Picture] = {}
    for number, row in enumerate(rows):
        where = f"{file}: item {number}"
        if not isinstance(row, dict) or len(row) != 1:
            raise ArtifactNetError(f"{where} must be an object with one key, not {brief(row)}")
        (item,) = row.values()
        image = item.get("img_file_name") if isinstance(item, dict) else None
        if not isinstance(image, str) or not image or "\0" in image:
            raise ArtifactNetError(f"{where}: 'img_file_name' must be text, not {brief(image)}")
        refs = item.get("refs")
        if not isinstance(refs, list):
            raise ArtifactNetError(f"{where}: 'refs' must be a list, not {brief(refs)}")
        picture = pictures.setdefault(image, _Picture(where))
        picture.items += 1
        for index, ref in enumerate(refs):
            name = f"{where}: refs[{index}]"
            region = _region(ref, name, writer)
            if region is None:
                picture.unknown = True
            elif any(region == other for other, _ in picture.regions):
                writer.leave_out("regions are in two items of their picture", name)
            else:
                picture.regions.append((region, name))
    return pictures


def _region(ref: Any, where: str, writer: ManifestWriter) -> Region | None:
    """Region of a ref; None, noted, where it has no area or caption."""
    outlines = ref.get("segmentation") if isinstance(ref, dict) else None
    if not isinstance(outlines, list) or not all(
        isinstance(outline, list) and len(outline) % 2 == 0 and are_coordinates(outline)
        for outline in outlines
    ):
        raise ArtifactNetError(
            f"{where}: 'segmentation' must be a list of outlines [x, y, x, y, ...] of finite "
            f"numbers, not {brief(outlines)}"
        )
    points = [pair for o in outlines for pair in zip(o[::2], o[1::2], strict=True)]
    x1, y1, x2, y2 = map(float, hull(points or [(0, 0)]))
    if x1 >= x2 or y1 >= y2:
        writer.leave_out("regions have no area", where)
        return None
    for key in ("explanation", "sentence"):
        if ref.get(key) not in (None, "") and str(ref[key]).strip():
            return Region((x1, y1, x2, y2), parse_caption(ref[key], f"{where}: {key!r}"))
    writer.leave_out("regions have no caption", where)
    return None
