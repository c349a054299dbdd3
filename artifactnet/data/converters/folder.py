"""A manifest of a folder of images, so that it can be mixed with other data."""

from __future__ import annotations

from pathlib import Path

from artifactnet.data.converters.common import Conversion, ManifestWriter
from artifactnet.data.image_folders import find_images, find_repeated_stems, map_keys
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.masks import read_mask


def convert_folder(
    source: Path, out: Path, *, name: str = "folder", overwrite: bool = False
) -> Conversion:
    """Make a manifest of a folder of any layout that ``data.name=folder`` reads.

    Masks are copied as bit fields. The uid of an image is ``NAME/STEM``, of the manifest and of its
    file, since stems of unrelated data sets may be equal. A stem that occurs in several split
    folders counts as different pictures, with a warning; the uid is ``NAME/SPLIT/STEM``. Arguments:
    see `convert_dataset`.

    Raises:
        ArtifactNetError: the folder cannot be used, a mask is damaged or of another size than its
            image, ``out`` lies inside ``source``, or the manifest exists.
    """
    writer = ManifestWriter(out, name, overwrite, inputs=[source])
    items, warnings = find_images(source)
    repeated, shared = find_repeated_stems(items)
    keys = map_keys([item.record.location for item in items], source)
    for item in items:
        record = item.record
        mask = None
        if item.mask is not None:
            size = writer.size(record.location, record.location)
            if size is None:
                continue
            values = read_mask(item.mask, size, record.location)
            mask = writer.store("masks", keys[record.location], values, record.location)
        uid = (
            f"{name}/{item.split}/{record.uid}"
            if record.uid in repeated
            else f"{name}/{record.uid}"
        )
        known = uid, record.label, record.annotation, item.split, record.generator
        writer.lines.append(ManifestLine(record.location, *known, mask=mask))
    return writer.finish(source, warnings + shared)
