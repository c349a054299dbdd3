"""X-AIGD's polygons as boxes with a caption, and its fakes, which parquet shards hold, as files."""

from __future__ import annotations

import os
from pathlib import Path

from artifactnet.data.converters.common import Conversion, ManifestWriter
from artifactnet.data.image_files import HEAD, Skipped, image_format, list_images
from artifactnet.data.images import shown_size
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.regions import regions_of_polygons
from artifactnet.data.shard_values import check_names, parse_labels, to_whole
from artifactnet.data.shards import COLUMNS, ShardReader, find_shards, read_rows
from artifactnet.files import atomic_path
from artifactnet.names import file_path, name_limits
from artifactnet.taxonomy import BY_LABEL
from artifactnet.types import Annotation, ArtifactNetError

PARTS = {"labeled_train": "train", "labeled_test": "test"}  # part -> split


def convert_xaigd_boxes(
    source: Path,
    images: Path | None,
    out: Path,
    *,
    name: str = "xaigd_boxes",
    overwrite: bool = False,
) -> Conversion:
    """Make a manifest of X-AIGD's labeled rows with one region per polygon.

    Box and caption are those of `artifactnet.data.regions.regions_of_polygons`.
    Fakes are written, byte for byte, to ``OUT/images/NAME/GENERATOR/UID``. Photographs of their
    uids are listed beside them, from ``images`` or ``source/real`` (file stem = uid). Other
    arguments: see `convert_dataset`.

    Raises:
        ArtifactNetError: no labeled shard, or an unreadable one; a malformed polygon; a generator
            has a uid twice; an image of another size than its row states; two photographs of one
            uid; or see `ManifestWriter`.
    """
    real = images or source / "real"
    if images is not None and not images.is_dir():
        raise ArtifactNetError(f"{images}: no such folder of photographs")
    writer = ManifestWriter(out, name, overwrite, inputs=[source, real])
    shards, warnings = find_shards(source)
    parts = {part: paths for part, paths in shards.items() if part in PARTS}
    if not parts:
        raise ArtifactNetError(f"{source}: only {', '.join(shards)} shards, which have no polygons")
    limits = name_limits(out / "images" / name)
    reader = ShardReader()
    split_of: dict[str, str] = {}  # uid -> split
    columns = [column for column in COLUMNS if column in ("image", "generator", "uid")]
    for part, paths in parts.items():
        for shard in paths:
            for place, row in read_rows(shard, columns):
                check_names(row, place)
                uid, generator = row["uid"], row["generator"]
                where = f"{place} ({generator}/{uid})"
                data, annotation = reader.read(place)
                try:
                    height, width, _ = shown_size(data, where)
                except ArtifactNetError as error:
                    writer.leave_out("images cannot be read", str(error))
                    continue
                stated = tuple(to_whole(annotation.get(side)) for side in ("width", "height"))
                if stated != (width, height):
                    raise ArtifactNetError(
                        f"{where}: the image is {width}x{height}, its annotation is for "
                        f"{stated[0]}x{stated[1]}"
                    )
                labels = parse_labels(annotation.get("labels"), where)
                regions = regions_of_polygons(labels, (height, width), where)
                bits = 0
                for label in labels:
                    bits |= BY_LABEL[label["label"]].bit
                suffix = str(image_format(data[:HEAD])).lower()
                file = file_path(f"{generator}/{uid}.{suffix}", limits)
                path = out / "images" / name / file
                writer.claim(str(path), where)
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(path) as temporary:
                    temporary.write_bytes(data)
                split_of.setdefault(uid, PARTS[part])
                known = uid, 1, Annotation.NONE, PARTS[part], generator
                line = ManifestLine(str(path), *known, categories=bits, where=where)
                writer.add_regions(line, regions)
    if real.is_dir():
        photographs = photographs_by_uid(real, warnings)
        for uid, split in split_of.items():
            if uid not in photographs:
                writer.leave_out(f"photographs are not in {real}", uid)
            elif writer.size(photographs[uid], uid) is not None:
                known = uid, 0, Annotation.CLEAN, split, "real"
                writer.lines.append(ManifestLine(photographs[uid], *known))
    else:
        warnings.append(f"no photographs: there is no {real}; name their folder with --images")
    return writer.finish(source, warnings)


def photographs_by_uid(folder: Path, warnings: list[str]) -> dict[str, str]:
    """uid -> path of every photograph in a folder; adds to ``warnings`` what else is there.

    Raises:
        ArtifactNetError: two photographs have one uid.
    """
    skipped = Skipped()
    paths: dict[str, str] = {}
    for _, path in list_images(folder, skipped):
        stem = os.path.splitext(os.path.basename(path))[0]
        if paths.setdefault(stem, path) != path:
            raise ArtifactNetError(
                f"{folder}: two images of uid {stem!r}: {paths[stem]} and {path}; remove one"
            )
    warnings += skipped.describe(folder)
    return paths
