"""Which images a report shows: found, named and evenly sampled; nothing is decoded yet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

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


def file_items(inputs: Sequence[str | Path], skip: str | Path) -> list[Item | Failure]:
    """Images of files, folders (searched recursively), X-AIGD parquet shards and patterns.

    Of shards only the columns without images are read. An image's generator is the name of its
    folder, unless all images are in it; its label is unknown. The folder ``skip`` is not searched.

    Returns:
        Every image once, in a fixed order, and inputs without any.
    """
    found = collect.resolve_inputs(inputs, skip)
    items: dict[str, Item | Failure] = {}
    for root in found.roots:
        shard = root.lower().endswith(SHARD_SUFFIX) and not os.path.isdir(root)
        for key, item in (_shard_items if shard else _image_items)(root, found):
            items.setdefault(key, item)
    return [*found.failures, *items.values()]


_Items = Iterator[tuple[str, Item | Failure]]  # with a key of the image


def _image_items(root: str, found: collect.ResolvedInputs) -> _Items:
    for source in collect.iterate_images(replace(found, roots=(root,))):
        if isinstance(source, Failure):
            yield source.path, source
            continue
        key = os.path.abspath(source.name)
        generator = None if os.path.dirname(key) == found.base else source.generator
        name = collect.answer_name(source.name, found)
        yield key, Item(name, partial(_read_file, source), generator, None, source.name)


def _shard_items(shard: str, found: collect.ResolvedInputs) -> _Items:
    reader, place = ShardReader(), None
    try:
        for place, row in read_rows(Path(shard), ("generator",)):
            path = f"{shard}#{place.number}"
            name = collect.answer_name(path, found)
            load = partial(_read_row, reader, place, path)
            yield os.path.abspath(path), Item(name, load, row["generator"], None, path)
    except ArtifactNetError as error:
        yield shard, Failure(shard, str(error).removeprefix(f"{Path(shard)}: "))
        return
    if place is None:
        yield shard, Failure(shard, "the shard has no rows")


def _read_file(source: ImageInput) -> UInt8Array:
    return to_pixels(source.image, source.name)


def _read_row(reader: ShardReader, place: RowLocation, name: str) -> UInt8Array:
    content, _ = reader.read(place)
    return to_pixels(content, name)


def spread_evenly(items: Sequence[Item], limit: int) -> list[Item]:
    """At most ``limit`` (>= 1) items, in their order, evenly spread over labels and generators.

    Every label and generator keeps its share, to within one image. (Every second of images that
    are real and fake in turn would be of one class.)
    """
    count = len(items)
    if count <= limit:
        return list(items)

    def group(index: int) -> tuple[str, str, int]:
        return str(items[index].label), str(items[index].generator), index

    order = sorted(range(count), key=group)
    kept = sorted(order[(2 * k + 1) * count // (2 * limit)] for k in range(limit))
    return [items[index] for index in kept]
