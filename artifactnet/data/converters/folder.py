"""A manifest of a folder of images, so that it can be mixed with other data."""

from __future__ import annotations

from pathlib import Path

from artifactnet.data.converters.common import Conversion, ManifestWriter
from artifactnet.data.image_folders import find_images, map_keys, stems_in_several_splits
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.masks import read_mask


def convert_folder(
    source: Path, out: Path, *, name: str = "folder", overwrite: bool = False
) -> Conversion:
    """Make a manifest of a folder of any layout that ``data.name=folder`` reads.

    Masks are copied as bit fields. The uid of an image is ``NAME/STEM``, of the manifest and of its
    file: stems of unrelated data sets may be equal. Where a stem occurs in several split folders,
    these are believed to show different pictures, with a warning, and it is ``NAME/SPLIT/STEM``.

    Args:
        source: see `artifactnet.data.image_folders.LAYOUTS`.
        out: see `artifactnet.data.converters.common.ManifestWriter`, as for ``name`` and ``overwrite``.
        name: of the manifest.
        overwrite: replace the manifest.

    Raises:
        ArtifactNetError: the folder cannot be used, a mask is damaged or of another size than its
            image, ``out`` lies inside ``source``, or the manifest exists.
    """
    output = ManifestWriter(out, name, overwrite, inputs=[source])
    items, warnings = find_images(source)
    shared = stems_in_several_splits(items)
    if shared:
        warnings.append(
            f"{len(shared)} file stems occur in more than one split folder, e.g. {min(shared)!r}; "
            "they are taken for different pictures: if they are not, the splits leak"
        )
    keys = map_keys([item.record.location for item in items], source)
    for item in items:
        record = item.record
        mask = None
        if item.mask is not None:
            size = output.size(record.location, record.location)
            if size is None:
                continue
            values = read_mask(item.mask, size, record.location)
            mask = output.store("masks", keys[record.location], values, record.location)
        place = f"{name}/{item.split}" if record.uid in shared else name
        output.lines.append(
            ManifestLine(
                image=record.location,
                uid=f"{place}/{record.uid}",
                label=record.label,
                annotation=record.annotation,
                split=item.split,
                generator=record.generator,
                mask=mask,
            )
        )
    return output.finish(source, warnings)
