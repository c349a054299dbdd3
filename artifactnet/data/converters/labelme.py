"""Images annotated with labelme: one JSON file each, with shapes, descriptions and flags."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artifactnet.data.converters.common import (
    Conversion,
    ManifestWriter,
    hull,
    parse_foreign_tags,
)
from artifactnet.data.image_folders import ImageFolder
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.regions import (
    are_coordinates,
    clip_region,
    parse_caption,
    parse_corners,
)
from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.types import Annotation, ArtifactNetError, Region

# type of a shape -> its least and greatest number of points
SHAPES = {"rectangle": (2, 4), "polygon": (3, math.inf), "circle": (2, 2)}


def convert_labelme(
    source: Path,
    images: Path,
    out: Path,
    *,
    name: str = "labelme",
    generator: str = "fake",
    overwrite: bool = False,
) -> Conversion:
    """Make a manifest of a folder of labelme's JSON files, searched deeply.

    The box of a rectangle, polygon or circle is a region; what of a circle lies outside the image
    is cut off. Its caption is the ``description``, else the ``label``. Shapes of other types are
    left out and counted; an image that has no other ones is not annotated. ``flags`` that are true
    are tags; an image without any flag has none annotated. An image without shapes is clean, one
    without a JSON file not annotated. The uid of an image is ``NAME/PATH``, its path below the
    folder without suffix. Arguments: see `convert_dataset`.

    Raises:
        ArtifactNetError: a file is malformed, is of an image of another size, or has a shape that
            reaches out of it, a caption with a marker in it, or a true flag that is no tag; or see
            `ManifestWriter`.
    """
    if not source.is_dir():
        raise ArtifactNetError(f"{source}: no such folder of labelme's JSON files")
    files = [path for path in sorted(source.rglob("*.json")) if not path.name.startswith(".")]
    if not files:
        raise ArtifactNetError(f"{source}: holds no .json file")
    writer = ManifestWriter(out, name, overwrite, inputs=[source, images], generator=generator)
    folder = ImageFolder(images)

    def line_of(path: str, tags: tuple[str, ...] | None, where: str = "") -> ManifestLine:
        uid = f"{name}/{folder.stem(path)}"
        return ManifestLine(path, uid, 1, Annotation.NONE, None, generator, tags=tags, where=where)

    for file in files:
        where = str(file)
        data = _read(file)
        target = file.parent / data["imagePath"].replace("\\", "/")  # as written on Windows
        path, size = writer.find(folder, os.path.relpath(target, images), where)
        if path is None or size is None:
            continue
        writer.claim(path, where)
        stated = data.get("imageHeight"), data.get("imageWidth")
        if stated != size:  # labelme too shows images turned by EXIF
            raise ArtifactNetError(
                f"{where}: {path} is {size[1]}x{size[0]}, its 'imageWidth' and 'imageHeight' are "
                f"{brief(stated[1])} and {brief(stated[0])}"
            )
        regions = _regions(data["shapes"], size, where, writer)
        writer.add_regions(line_of(path, _tags(data, where), where), regions)
    for path in folder.paths:
        if path not in writer.claimed:
            writer.leave_out("images have no JSON file: not annotated", path)
            if writer.size(path, path) is not None:
                writer.add_regions(line_of(path, None), None)
    return writer.finish(source, [])


def _read(file: Path) -> dict[str, Any]:
    data = parse_json(read_text(file), str(file))
    if not (
        isinstance(data, dict)
        and isinstance(data.get("shapes"), list)
        and isinstance(data.get("imagePath"), str)
        and data["imagePath"]
        and "\0" not in data["imagePath"]
    ):
        held = f"has {brief(sorted(data))}" if isinstance(data, dict) else f"is {brief(data)}"
        raise ArtifactNetError(
            f"{file}: it {held}; a file of labelme has a list 'shapes' and the text 'imagePath'"
        )
    return data


def _regions(
    shapes: Sequence[Any], size: tuple[int, int], where: str, writer: ManifestWriter
) -> list[Region] | None:
    """Regions of an image; None where it has shapes, none of which can be used."""
    regions = []
    for number, shape in enumerate(shapes):
        name = f"{where}: shapes[{number}]"
        if not isinstance(shape, dict) or not isinstance(shape.get("shape_type"), str):
            raise ArtifactNetError(
                f"{name} must be an object with 'shape_type', not {brief(shape)}"
            )
        if shape["shape_type"] not in SHAPES:
            writer.leave_out(
                f"shapes are no {', '.join(SHAPES)}", f"{name}: {brief(shape['shape_type'])}"
            )
            continue
        box = parse_corners(_box(shape, size, name), f"{name}: the box around its 'points'")
        key = "description" if shape.get("description") not in (None, "") else "label"
        caption = parse_caption(shape.get(key), f"{name}: {key!r}")
        regions.append(clip_region(Region(box, caption), size, name))
    return None if shapes and not regions else regions


def _box(shape: dict[str, Any], size: tuple[int, int], where: str) -> tuple[float, ...]:
    kind, points = shape["shape_type"], shape.get("points")
    least, most = SHAPES[kind]
    if not (
        isinstance(points, list)
        and least <= len(points) <= most
        and all(isinstance(point, list) and len(point) == 2 for point in points)
        and are_coordinates(v for point in points for v in point)
    ):
        raise ArtifactNetError(
            f"{where}: 'points' of a {kind} must be {least}"
            f"{'' if most == least else ' or more' if most == math.inf else f' to {most}'} finite "
            f"pairs [x, y], not {brief(points)}"
        )
    if kind != "circle":
        return hull([(x, y) for x, y in points])
    (x, y), (edge_x, edge_y) = points
    radius = math.hypot(edge_x - x, edge_y - y)
    height, width = size
    return (
        max(0.0, x - radius),
        max(0.0, y - radius),
        min(width, x + radius),
        min(height, y + radius),
    )


def _tags(data: dict[str, Any], where: str) -> tuple[str, ...] | None:
    flags = data.get("flags")
    if flags in (None, {}):
        return None
    if not isinstance(flags, dict) or not all(isinstance(value, bool) for value in flags.values()):
        raise ArtifactNetError(
            f"{where}: 'flags' must be an object of true and false, not {brief(flags)}"
        )
    return parse_foreign_tags([n for n, value in flags.items() if value], f"{where}: 'flags'")
