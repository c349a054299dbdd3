"""Which images a report shows: found, named and evenly sampled; nothing is decoded yet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from artifactnet.data.image_files import FileWalk, Skipped
from artifactnet.data.shards import RowLocation, ShardReader, read_rows
from artifactnet.inference import collect
from artifactnet.inference.collect import SHARD_SUFFIX
from artifactnet.inference.inputs import Failure, ImageInput, to_pixels
from artifactnet.types import ArtifactNetError, Record, Sample, UInt8Array


@dataclass(frozen=True, slots=True)
class Item:
    """An image that is read later."""

    name: str  # in the report
    # (H, W, 3) sRGB pixels, or a sample with its annotation; raises `ArtifactNetError`
    load: Callable[[], Sample | UInt8Array]
    generator: str | None = None  # None if unknown
    label: int | None = None  # 0 real, 1 fake, None if unknown
    location: str | None = None  # name in errors of ``load``, if not ``name``


def record_items(records: Sequence[Record], load: Callable[[int], Sample]) -> list[Item]:
    """The images of a data set; ``load`` decodes the image of a position in ``records``."""
    names = short_names([record.location for record in records])
    return [
        Item(name, partial(load, index), record.generator, record.label, record.location)
        for index, (name, record) in enumerate(zip(names, records, strict=True))
    ]


def short_names(locations: Sequence[str]) -> list[str]:
    """Locations without the folder that all of them share: a report may leave the machine."""
    folders = {os.path.dirname(location) for location in locations}
    if not folders or len({os.path.isabs(folder) for folder in folders}) > 1:
        return list(locations)
    shared = os.path.commonpath(list(folders))
    if not shared:
        return list(locations)
    return [Path(os.path.relpath(location, shared)).as_posix() for location in locations]


def file_items(
    inputs: Sequence[str | Path],
    skip: str | Path,
    skipped: Skipped | None = None,
    levels: int | None = None,
) -> list[Item | Failure]:
    """Images of files, folders (searched recursively), X-AIGD parquet shards and patterns.

    Of shards only the columns without images are read. An image's generator is the name of its
    folder, unless all images are in it; its label is unknown. The folder ``skip`` is not searched.
    Files of folders that are no images are counted in ``skipped``. ``levels`` is the value of white
    in images of more than 8 bits, where it is not evident.

    Returns:
        Every image once, in a fixed order, and inputs without any.
    """
    found = collect.resolve_inputs(inputs, skip)
    items: dict[str, Item | Failure] = {}
    walk, others = FileWalk(found.skip), Skipped()
    for root in found.roots:
        if root.lower().endswith(SHARD_SUFFIX) and not os.path.isdir(root):
            listed = _shard_items(root, found, levels)
        else:
            sources = collect.iterate_images(replace(found, roots=(root,)), others, walk)
            listed = _image_items(sources, found, levels)
        for key, item in listed:
            items.setdefault(key, item)
    skipped = Skipped() if skipped is None else skipped
    for reason, count in others.counts.items():
        skipped.counts[reason] += count
        skipped.names[reason] += [collect.short_path(path, found) for path in others.names[reason]]
    return [*found.failures, *items.values()]


_Items = Iterator[tuple[str, Item | Failure]]  # with a key of the image


def _image_items(
    sources: Iterator[ImageInput | Failure], found: collect.ResolvedInputs, levels: int | None
) -> _Items:
    for source in sources:
        if isinstance(source, Failure):
            name = collect.short_path(source.path, found)
            yield source.path, Item(name, partial(_refuse, source), location=source.path)
            continue
        key = os.path.abspath(source.name)
        generator = None if os.path.dirname(key) == found.base else source.generator
        name = collect.short_path(source.name, found)
        yield key, Item(name, partial(_read_file, source, levels), generator, None, source.name)


def _shard_items(shard: str, found: collect.ResolvedInputs, levels: int | None) -> _Items:
    reader, place = ShardReader(), None
    try:
        columns = [name for name in collect.shard_columns(shard) if name == "generator"]
        for place, row in read_rows(Path(shard), columns):
            path = f"{shard}#{place.number}"
            name = collect.short_path(path, found)
            load = partial(_read_row, reader, place, path, levels)
            yield os.path.abspath(path), Item(name, load, row.get("generator"), None, path)
    except ArtifactNetError as error:
        yield shard, Failure(shard, str(error).removeprefix(f"{Path(shard)}: "))
        return
    if place is None:
        yield shard, Failure(shard, "the shard has no rows")


def _refuse(failure: Failure) -> UInt8Array:
    raise ArtifactNetError(f"{failure.path}: {failure.reason}")


def _read_file(source: ImageInput, levels: int | None) -> UInt8Array:
    return to_pixels(source.image, source.name, levels)


def _read_row(reader: ShardReader, place: RowLocation, name: str, levels: int | None) -> UInt8Array:
    content, _ = reader.read(place)
    return to_pixels(content, name, levels)


def spread_evenly(items: Sequence[Item], limit: int) -> list[Item]:
    """At most ``limit`` (>= 1) items, in their order, evenly spread over labels and generators.

    Every label and generator keeps its share, to within one image. (Every second of images that
    are real and fake in turn would be of one class.)
    """
    groups = [(str(item.label), str(item.generator)) for item in items]
    return [items[index] for index in pick_evenly(groups, limit)]


def pick_evenly(groups: Sequence[tuple[str, ...]], limit: int) -> list[int]:
    """Rising indices of at most ``limit`` (>= 1) items, evenly spread over their groups."""
    count = len(groups)
    if count <= limit:
        return list(range(count))
    order = sorted(range(count), key=lambda index: (groups[index], index))
    return sorted(order[(2 * k + 1) * count // (2 * limit)] for k in range(limit))
