"""From rows of X-AIGD shards to records, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactnet.config import DataConfig
from artifactnet.data.images import SUBSAMPLINGS
from artifactnet.data.masks import parse_label
from artifactnet.data.shards import CODEC_COLUMNS, COLUMNS, Place, read_rows
from artifactnet.taxonomy import BY_LABEL
from artifactnet.types import Annotation, ArtifactNetError, Record


@dataclass(frozen=True, slots=True)
class Item:
    """One image of X-AIGD, not yet read.

    Attributes:
        record: what is known of it.
        place: its row in a shard, or None for a photograph, which is a file of its own.
        codec: JPEG quality and chroma subsampling to re-encode it with, or None.
    """

    record: Record
    place: Place | None = None
    codec: tuple[int, str] | None = None


def read_items(part: str, shards: list[Path], config: DataConfig) -> list[Item]:
    """List the rows of one part of the data set.

    Args:
        part: ``labeled_train``, ``labeled_test``, ``unlabeled_train`` or ``unlabeled_test``.
        shards: its files.
        config: unlabeled parts are read only for ``unlabeled`` or ``extra_real``;
            ``augment.align_compression`` fills `Item.codec`.

    Raises:
        ArtifactNetError: a shard cannot be read or lacks a column, a row has no uid or
            generator, or, with ``on_error=raise``, a polygon is malformed.
    """
    labeled = part.startswith("labeled")
    columns = [name for name in COLUMNS if labeled or name != "labels"]
    if config.augment.align_compression:
        columns += CODEC_COLUMNS
    if not (labeled or config.unlabeled or config.extra_real):
        return []
    items = []
    for shard in shards:
        for place, row in read_rows(shard, columns):
            if not row["uid"] or not row["generator"]:
                raise ArtifactNetError(f"{place}: uid or generator is empty")
            codec = _codec(row) if config.augment.align_compression else None
            record = _record(place, row, labeled, config.on_error == "raise")
            items.append(Item(record, place, codec))
    return items


def _record(place: Place, row: dict[str, Any], labeled: bool, strict: bool) -> Record:
    labels = (row["labels"] or []) if labeled else []
    bits = 0
    for label in labels:
        if strict:  # otherwise the bad row is met, and skipped, when it is loaded
            parse_label(label, f"{place} ({row['generator']}/{row['uid']})")
        known = BY_LABEL.get(label["label"])
        bits |= known.bit if known else 0
    state = Annotation.NONE
    if labeled:
        state = Annotation.MASK if labels else Annotation.CLEAN
    return Record(row["uid"], 1, row["generator"], state, str(place), bits)


def _codec(row: dict[str, Any]) -> tuple[int, str] | None:
    quality = row["jpeg_quality"] or 0
    if str(row["image_format"]).upper() not in ("JPEG", "JPG") or not 1 <= quality <= 100:
        return None
    subsampling = row["chroma_subsampling"]
    return int(quality), subsampling if subsampling in SUBSAMPLINGS else "4:2:0"


def codec_warnings(items: list[Item]) -> list[str]:
    """Say how many of the fakes compression alignment leaves as they are."""
    plain = sum(item.codec is None for item in items)
    if not plain:
        return []
    return [
        f"compression alignment: {plain} of {len(items)} fakes stay as they are, since their "
        "photograph is not a JPEG or its quality is not recorded"
    ]
