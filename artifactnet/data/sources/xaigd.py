"""The X-AIGD data set: fakes in its public parquet shards, photographs in a folder by uid.

``labeled_*`` rows are annotated (clean where they list no polygon), ``unlabeled_*`` rows are
not. Every photograph appears once, whatever the number of fakes made from it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactnet.config import DataConfig
from artifactnet.data import splits as splitting
from artifactnet.data.folder_names import split_of
from artifactnet.data.image_files import Skipped, list_images
from artifactnet.data.images import SUBSAMPLINGS, decode_image, encode_jpeg
from artifactnet.data.masks import parse_label, rasterize
from artifactnet.data.regions import regions_of_polygons
from artifactnet.data.shard_values import check_names, parse_labels, to_whole
from artifactnet.data.shards import (
    CODEC_COLUMNS,
    COLUMNS,
    RowLocation,
    ShardReader,
    find_shards,
    read_rows,
)
from artifactnet.data.sources.base import Source, Splits
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample


@dataclass(frozen=True, slots=True)
class XAigdItem:
    """One image of X-AIGD, not yet read.

    ``place`` is its row in a shard, or None for a photograph, which is a file of its own; ``codec``
    the JPEG quality and chroma subsampling to re-encode it with, or None.
    """

    record: Record
    place: RowLocation | None = None
    codec: tuple[int, str] | None = None


def read_items(part: str, shards: list[Path], config: DataConfig) -> list[XAigdItem]:
    """List the rows of one part of the data set (``labeled_train``, ``unlabeled_test``, ...).

    Unlabeled parts are read only for ``config.unlabeled`` or ``extra_real``, and
    ``unlabeled_val`` likewise; ``augment.align_compression`` fills `XAigdItem.codec`.

    Raises:
        ArtifactNetError: a shard cannot be read or lacks a column, a row has no uid or generator,
            or, with ``on_error=raise``, a polygon is malformed.
    """
    labeled = part.startswith("labeled")
    columns = [name for name in COLUMNS if labeled or name != "labels"]
    if config.augment.align_compression:
        columns += CODEC_COLUMNS
    if not (labeled or config.unlabeled or config.extra_real or config.unlabeled_val):
        return []
    items = []
    for shard in shards:
        for place, row in read_rows(shard, columns):
            check_names(row, place)
            uid, generator = row["uid"], row["generator"]
            state, bits = Annotation.NONE, 0
            if labeled:
                state, bits = _annotation(row["labels"], f"{place} ({generator}/{uid})", config)
            codec = _codec(row) if config.augment.align_compression else None
            record = Record(uid, 1, generator, state, str(place), bits)
            items.append(XAigdItem(record, place, codec))
    return items


def _annotation(stored: Any, where: str, config: DataConfig) -> tuple[Annotation, int]:
    """State and categories of a row; a malformed one is an error, or one when it is loaded."""
    bits = 0
    try:
        labels = parse_labels(stored, where)
        for label in labels:
            bits |= parse_label(label, where)[0]
    except ArtifactNetError:
        if config.on_error == "raise":
            raise
        return Annotation.MASK, bits  # `XAigdSource.load` raises again, and the row is skipped
    return (Annotation.MASK if labels else Annotation.CLEAN), bits


def _codec(row: dict[str, Any]) -> tuple[int, str] | None:
    quality = row["jpeg_quality"] or 0
    if str(row["image_format"]).upper() not in ("JPEG", "JPG") or not 1 <= quality <= 100:
        return None
    subsampling = row["chroma_subsampling"]
    return int(quality), subsampling if subsampling in SUBSAMPLINGS else "4:2:0"


class XAigdSource:
    """Images of one split: rows of parquet shards and photographs."""

    def __init__(
        self,
        items: list[XAigdItem],
        warnings: tuple[str, ...] = (),
        levels: int | None = None,
    ) -> None:
        self.records: list[Record] = [item.record for item in items]
        self.warnings = warnings
        self._items = items
        self._reader = ShardReader()
        self._levels = levels

    def load(self, index: int) -> Sample:
        """See `Source.load`; mask and regions are those of the polygons."""
        item = self._items[index]
        record = item.record
        if item.place is None:
            return Sample(record, decode_image(record.location, record.location, self._levels))
        data, row = self._reader.read(item.place)
        image = decode_image(data, record.location, self._levels)
        if item.codec is not None:
            image = decode_image(encode_jpeg(image, *item.codec), record.location)
        if record.annotation is not Annotation.MASK:
            return Sample(record, image)
        height, width = image.shape[:2]
        stated = tuple(to_whole(row[side]) for side in ("width", "height"))
        if stated != (width, height):
            raise ArtifactNetError(
                f"{record.location}: the image is {width}x{height}, its annotation is for "
                f"{stated[0]}x{stated[1]}"
            )
        where = f"{record.location} ({record.generator}/{record.uid})"
        labels = parse_labels(row["labels"], where)
        mask = rasterize(labels, height, width, where)
        regions = regions_of_polygons(labels, (height, width), where)
        return Sample(record, image, mask, regions=regions)

    def encoded(self, index: int) -> bytes | None:
        """Stored file content of a row's image; None for a photograph, which has a path."""
        place = self._items[index].place
        return None if place is None else self._reader.read(place)[0]


def build_xaigd_splits(config: DataConfig, seed: int) -> Splits:
    """List the shards below ``config.root`` and the photographs below ``config.real_root``.

    Test is ``labeled_test``. The validation split is made of the uids of ``labeled_train`` that
    ``root/uid_splits.csv`` calls ``val``, as `synthesize` writes it (several uids may show one
    photograph); where it names none, as in the public data, of a share ``config.val_fraction`` of
    them. With ``config.unlabeled_val`` it is that many uids of ``unlabeled_train`` instead, which
    are not trained on (X-AIGD B.3). ``config.unlabeled`` adds the unlabeled rows (each to the split
    of its uid, so validation does not depend on it), ``config.extra_real`` the photographs of uids
    that have no labeled row to the training split (X-AIGD B.2). ``config.real_root`` defaults to
    ``root/real``.

    With ``config.augment.align_compression`` a fake is re-encoded with the JPEG quality and chroma
    subsampling of its photograph. Where that was no JPEG, or its quality is not recorded (missing
    or 0), the fake stays as it is, and a warning counts it; an unknown subsampling counts as 4:2:0,
    libjpeg's own.

    Raises:
        ArtifactNetError: no shard, an unreadable one or one without a column; an unknown generator;
            no photograph at all; with ``on_error=raise`` also a malformed polygon.
    """
    if config.root is None:
        raise ArtifactNetError("data.root is not set; name the folder of the X-AIGD shards")
    if not 0 <= config.val_fraction < 1:
        raise ArtifactNetError(f"data.val_fraction={config.val_fraction}: must be in [0, 1)")
    shards, warnings = find_shards(Path(config.root))
    rows = {part: read_items(part, paths, config) for part, paths in shards.items()}
    listed = [item.record for items in rows.values() for item in items]
    keep = splitting.select_generators(listed, config.generators, Path(config.root))
    rows = {
        part: [item for item in items if item.record.generator in keep]
        for part, items in rows.items()
    }
    splits, extra = _assign(rows, config, seed, _named_val(Path(config.root)))
    if not splits:
        raise ArtifactNetError(
            f"data.root={config.root}: only {', '.join(shards)} shards; data.unlabeled=true "
            "uses them"
        )
    fakes = [item for items in splits.values() for item in items]
    plain = sum(item.codec is None for item in fakes)
    if config.augment.align_compression and plain:
        warnings.append(
            f"compression alignment: {plain} of {len(fakes)} fakes stay as they are, since their "
            "photograph is not a JPEG or its quality is not recorded"
        )
    skipped = Skipped()
    real = _photographs(config, skipped)
    warnings += skipped.describe(_real_root(config))
    uids = {
        name: sorted({item.record.uid for item in items} | extra.get(name, set()))
        for name, items in splits.items()
    }
    warnings += _missing({uid for part in uids.values() for uid in part}, real, config)
    result: dict[str, Source] = {}
    for name, items in splits.items():
        photographs = [
            XAigdItem(Record(uid, 0, "real", Annotation.CLEAN, real[uid], path=real[uid]))
            for uid in uids[name]
            if uid in real
        ]
        together = items + photographs
        kept = splitting.limit_uids([item.record for item in together], config.limit, seed)
        if kept:
            used = [together[k] for k in kept]
            result[name] = XAigdSource(used, tuple(warnings), config.levels)
    return result


def _named_val(root: Path) -> set[str]:
    """Uids that ``uid_splits.csv`` calls ``val``; none where there is no such file."""
    path = root / "uid_splits.csv"
    if not path.is_file():
        return set()
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            lines = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactNetError(f"{path}: cannot be read as CSV ({error})") from error
    return {str(line.get("uid")) for line in lines if split_of(line.get("split") or "") == "val"}


def _assign(
    rows: dict[str, list[XAigdItem]], config: DataConfig, seed: int, named: set[str]
) -> tuple[dict[str, list[XAigdItem]], dict[str, set[str]]]:
    """Fakes of each split, and the uids whose photographs are wanted beyond theirs."""
    train = rows.get("labeled_train", [])
    spare = rows.get("unlabeled_train", [])
    if config.unlabeled_val is not None:
        val = _unlabeled_val(train, spare, config.unlabeled_val, seed)
    else:
        uids = {item.record.uid for item in train or (spare if config.unlabeled else [])}
        fraction = config.val_fraction
        drawn = splitting.split_uids(uids, {"train": 1 - fraction, "val": fraction}, seed)["val"]
        val = uids & named or set(drawn)
    test = list(rows.get("labeled_test", []))
    extra: set[str] = set()
    used = train
    if config.unlabeled:
        used = train + spare
        test += rows.get("unlabeled_test", [])
    if config.extra_real:
        extra = {item.record.uid for item in spare} - val
    validation = train + spare if config.unlabeled_val is not None else used
    splits = {
        "train": [item for item in used if item.record.uid not in val],
        "val": [item for item in validation if item.record.uid in val],
        "test": test,
    }
    return {name: items for name, items in splits.items() if items}, {"train": extra}


def _unlabeled_val(
    train: list[XAigdItem], spare: list[XAigdItem], count: int, seed: int
) -> set[str]:
    """Uids without a labeled row, drawn by the seed."""
    free = {item.record.uid for item in spare} - {item.record.uid for item in train}
    if len(free) < count:
        raise ArtifactNetError(
            f"data.unlabeled_val={count}: unlabeled_train has {len(free)} uids without a labeled "
            "row; lower it, or add the shards unlabeled_train-*.parquet"
        )
    order = sorted(free, key=lambda uid: splitting.uid_sort_key(uid, seed, "unlabeled_val"))
    return set(order[:count])


def _real_root(config: DataConfig) -> Path:
    return Path(config.real_root) if config.real_root else Path(str(config.root)) / "real"


def _photographs(config: DataConfig, skipped: Skipped) -> dict[str, str]:
    """uid -> path of every photograph; other files are counted in ``skipped``."""
    folder = _real_root(config)
    if not folder.is_dir():
        if config.real_root:
            raise ArtifactNetError(f"data.real_root={folder}: no such folder")
        return {}
    paths: dict[str, str] = {}
    for _, path in list_images(folder, skipped):
        stem = Path(path).stem
        if stem in paths:
            raise ArtifactNetError(
                f"data.real_root: two images of uid {stem!r}: {paths[stem]} and {path}; remove one"
            )
        paths[stem] = path
    return paths


def _missing(uids: Iterable[str], real: dict[str, str], config: DataConfig) -> list[str]:
    """Warning about photographs that are missing; an error if all are."""
    needed = sorted(uids)
    absent = [uid for uid in needed if uid not in real]
    if not absent:
        return []
    place = config.real_root or f"{config.root}/real (data.real_root is not set)"
    text = (
        f"{len(absent)} of {len(needed)} real images are missing from {place}, e.g. "
        f"{absent[0]!r}; build them with the data set's download_real_images.py and point "
        "data.real_root at its --output-dir (file stem = uid)"
    )
    if len(absent) == len(needed):
        raise ArtifactNetError(text)
    return [text]
