"""Test sets whose images are listed in tables: rows of parquet files, FakeClue's JSON."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from artifactnet.data.converters import fakeclue
from artifactnet.data.duplicates import hash_bytes
from artifactnet.data.image_folders import FolderImage
from artifactnet.data.images import decode_image
from artifactnet.data.shard_values import to_whole
from artifactnet.data.shards import RowLocation, ShardReader, read_rows
from artifactnet.data.sources.folder import FolderSource
from artifactnet.data.test_sets.base import Reading, plain_record
from artifactnet.data.test_sets.folders import read_class_folders
from artifactnet.data.text import brief
from artifactnet.types import ArtifactNetError, Record, Sample

GPT_IMAGE = "4o-26-3-25"  # what Rapidata's comparison of March 2025 calls GPT-Image-1
_EVALUATED = ("publiceval", "compeval")  # splits of Community Forensics, as their files are called


class RowImages:
    """Images in columns of parquet files; ``places`` are (column, row), one per record."""

    def __init__(self, records: list[Record], places: Sequence[tuple[str, RowLocation]]) -> None:
        self.records = records
        self._places = list(places)
        self._readers = {column: ShardReader(column) for column, _ in places}

    def load(self, index: int) -> Sample:
        """See `Source.load`."""
        record = self.records[index]
        return Sample(record, decode_image(self.encoded(index), record.location))

    def encoded(self, index: int) -> bytes:
        """Stored file content of an image."""
        column, place = self._places[index]
        return self._readers[column].read(place)[0]


def read_community_forensics(root: Path) -> Reading:
    """Community Forensics: folders of one pair of classes per generator, or parquet files.

    Of parquet files those of ``PublicEval`` or ``CompEval`` are read, or all where none is called
    so. Columns: ``image_name``, ``image_data``, ``model_name`` and ``label`` (1 fake).

    Raises:
        ArtifactNetError: neither layout is there, or a row lacks label or generator.
    """
    shards = _parquet_files(root)
    if not shards:
        return read_class_folders(root)
    below = [os.path.relpath(shard, root).casefold() for shard in shards]
    named = [s for s, path in zip(shards, below, strict=True) if any(n in path for n in _EVALUATED)]
    records, places = [], []
    for place, row in _rows(named or shards, ("image_name", "model_name", "label")):
        label = to_whole(row["label"])
        if label not in (0, 1):
            raise ArtifactNetError(f"{place}: 'label' must be 0 or 1, not {brief(row['label'])}")
        uid = os.path.splitext(str(row["image_name"] or place.number))[0]
        model = "real" if label == 0 else row["model_name"]
        if not isinstance(model, str) or not model or (label and model == "real"):
            raise ArtifactNetError(
                f"{place}: 'model_name' must name a generator, not {brief(model)}"
            )
        records.append(plain_record(uid, model, str(place)))
        places.append(("image_data", place))
    return Reading(RowImages(records, places))


def read_comparisons(root: Path, generator: str | None = None) -> Reading:
    """One model's images of Rapidata's comparisons: fakes, each distinct one once.

    Columns: ``image1``, ``image2``, and ``model1``, ``model2`` that made them. An image is compared
    in many rows, so all of the model's are read and hashed; the uid is the hash.

    Args:
        root: folder of the parquet files, or one of them.
        generator: of the model; None: `GPT_IMAGE`.

    Raises:
        ArtifactNetError: there is no parquet file, or no image of this model.
    """
    shards = _parquet_files(root)
    if not shards:
        raise ArtifactNetError(f"{root}: holds no parquet files")
    wanted = generator or GPT_IMAGE
    readers = {column: ShardReader(column) for column in ("image1", "image2")}
    models: Counter[str] = Counter()
    found: dict[str, tuple[Record, tuple[str, RowLocation]]] = {}
    empty = []
    for place, row in _rows(shards, ("model1", "model2")):
        for column, model in zip(readers, (row["model1"], row["model2"]), strict=True):
            models[str(model)] += 1
            if model != wanted:
                continue
            location = f"{place} {column}"
            try:
                uid = hash_bytes(readers[column].read(place)[0]).hex()
            except ArtifactNetError as error:
                empty.append(f"{location}: {error}")
                continue
            found.setdefault(uid, (plain_record(uid, wanted, location), (column, place)))
    if wanted not in models:
        raise ArtifactNetError(
            f"{root}: no images of {wanted!r}; it has those of {', '.join(sorted(models)):.500}"
        )
    records = [record for record, _ in found.values()]
    source = RowImages(records, [place for _, place in found.values()])
    return Reading(source, left_out={"rows cannot be read": empty})


def read_fakeclue(root: Path) -> Reading:
    """The test split of FakeClue: ``data_json/test.json`` and images below ``test/``.

    Raises:
        ArtifactNetError: there is no such file, or see `fakeclue.read_clues`.
    """
    file = root / "data_json" / "test.json"
    if not file.is_file():
        raise ArtifactNetError(f"{root}: holds no data_json/test.json")
    repeated, missing = [], []
    items: dict[str, FolderImage] = {}
    for clue in fakeclue.read_clues(file, root / "test"):
        if clue.path in items:
            repeated.append(clue.where)
        elif not os.path.isfile(clue.path):
            missing.append(clue.path)
        else:
            maker = "fakeclue" if clue.label else "real"
            record = plain_record(clue.uid, maker, clue.path, clue.path)
            items[clue.path] = FolderImage(record, None, None)
    left_out = {fakeclue.REPEATED: repeated, "images are missing": missing}
    return Reading(FolderSource(list(items.values())), left_out=left_out)


def _parquet_files(root: Path) -> list[Path]:
    return [root] if root.is_file() else sorted(root.rglob("*.parquet"))


def _rows(
    shards: Sequence[Path], columns: Sequence[str]
) -> Iterator[tuple[RowLocation, dict[str, Any]]]:
    for shard in shards:
        yield from read_rows(shard, columns, images=False)
