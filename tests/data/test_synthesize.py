"""Data sets made from photographs: schema, splits, determinism, bad input."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from artifactnet.config import DataConfig
from artifactnet.data.masks import rasterize
from artifactnet.data.sources import demo as packaged
from artifactnet.data.sources import xaigd
from artifactnet.data.synthetic import synthesize
from artifactnet.data.synthetic.edits.blend import TOLERANCE
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import Annotation, ArtifactNetError

XAIGD_COLUMNS = [
    "image", "generator", "uid", "labels", "original_prompt", "positive_prompt",
    "negative_prompt", "guidance_scale", "num_inference_steps", "scheduler", "seed", "width",
    "height", "image_format", "jpeg_quality", "chroma_subsampling",
]  # fmt: skip
NAMES = ("astronaut", "coffee", "cat", "temple", "flower", "portrait")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six photographs, one of them in a sub-folder under a name that is no file name for all."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for photo in packaged.CLASSIC:
        if photo.scene in NAMES:
            image = Image.fromarray(packaged.read_photo(photo)).resize((220, 180))
            name = "more/Crème brûlée (2).jpg" if photo.scene == "coffee" else f"{photo.scene}.jpg"
            image.save(folder / name, quality=92)
    return folder


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "set"
    return synthesize.synthesize(folder, out, seed=3, per_photo=4, size=128, test_fraction=0.34)


def rows(out: Path, split: str) -> list[dict]:
    return pq.read_table(out / f"data/labeled_{split}-00000-of-00001.parquet").to_pylist()


def opened(file) -> np.ndarray:
    with Image.open(file) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_summary_counts_what_is_there_in_the_schema_of_x_aigd(written):
    assert (written.photographs, written.counts) == (6, {"train": 16, "test": 8})
    assert written.skipped == []
    for split, count in written.counts.items():
        assert len(rows(written.out, split)) == count
    names = [path.stem for path in (written.out / "real").iterdir()]
    assert len(names) == 24
    assert any(name.startswith("Cr-me-br-l-e-2-_") for name in names)
    assert all(name.isascii() and " " not in name for name in names)
    assert sorted(path.name for path in written.out.iterdir()) == ["data", "real", "uid_splits.csv"]
    file = pq.ParquetFile(written.out / "data/labeled_train-00000-of-00001.parquet")
    assert file.schema_arrow.names == XAIGD_COLUMNS
    assert str(file.schema_arrow.field("image").type) == "struct<bytes: binary, path: string>"
    known = {"image_format": "PNG", "jpeg_quality": 0, "generator": "edit", "seed": 3}
    assert rows(written.out, "train")[0].items() >= known.items()


def test_fakes_are_their_twins_outside_the_polygons(written):
    for split in written.counts:
        for row in rows(written.out, split):
            fake = opened(io.BytesIO(row["image"]["bytes"]))
            real = opened(written.out / "real" / f"{row['uid']}.png")
            assert fake.shape == real.shape == (row["height"], row["width"], 3) == (128, 128, 3)
            mask = rasterize(row["labels"], 128, 128, row["uid"])
            difference = np.abs(fake.astype(int) - real.astype(int)).max(axis=2)
            assert difference[mask == 0].max() <= 3 * TOLERANCE  # the faint borders of three edits
            assert difference[mask > 0].mean() > 8
            used = {label["label"] for label in row["labels"]}
            assert used == set(row["positive_prompt"].removeprefix("controlled edit: ").split(", "))


def test_the_xaigd_source_reads_it_back(written):
    config = DataConfig(name="xaigd", root=str(written.out), val_fraction=0.25)
    splits = xaigd.build_xaigd_splits(config, seed=0)
    assert set(splits) == {"train", "val", "test"}
    by_uid = {row["uid"]: row for split in ("train", "test") for row in rows(written.out, split)}
    counts = [0, 0]
    for source in splits.values():
        for index, record in enumerate(source.records):
            sample, row = source.load(index), by_uid[record.uid]
            counts[record.label] += 1
            if record.label == 0:
                assert record.annotation is Annotation.CLEAN
                stored = written.out / "real" / f"{record.uid}.png"
            else:
                assert record.annotation is Annotation.MASK
                stored = io.BytesIO(row["image"]["bytes"])
                assert (sample.mask == rasterize(row["labels"], 128, 128, record.uid)).all()
                assert int(np.bitwise_or.reduce(sample.mask.ravel())) == record.categories
            assert (opened(stored) == sample.image).all()
    assert counts == [24, 24]


def test_splits_are_by_photograph(written):
    with open(written.out / "uid_splits.csv", newline="") as handle:
        table = list(csv.DictReader(handle))
    assert len(table) == 24
    listed: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for line in table:
        listed[line["split"]].add(line["uid"])
    for split, names in (("train", ("train", "val")), ("test", ("test",))):
        uids = set.union(*(listed[name] for name in names))
        assert uids == {row["uid"] for row in rows(written.out, split)}
    config = DataConfig(name="xaigd", root=str(written.out), val_fraction=0.3)
    splits = xaigd.build_xaigd_splits(config, seed=1)
    assert {n: {r.uid for r in s.records} for n, s in splits.items()} == listed
    photographs = [{uid.rsplit("_", 1)[0] for uid in uids} for uids in listed.values()]
    assert (sorted(map(len, photographs)), len(set.union(*photographs))) == ([1, 2, 3], 6)


def test_same_seed_same_bytes(folder, written, tmp_path):
    options = {"per_photo": 4, "size": 128, "test_fraction": 0.34}
    again, other = (
        synthesize.synthesize(folder, tmp_path / f"{seed}", seed=seed, **options) for seed in (3, 4)
    )
    assert rows(again.out, "train") == rows(written.out, "train")
    assert rows(other.out, "train") != rows(written.out, "train")


def test_bad_photographs_are_listed_and_skipped(folder, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(folder, mixed)
    shutil.copy(mixed / "cat.jpg", mixed / "same cat.jpg")
    (mixed / "broken.jpg").write_bytes((mixed / "cat.jpg").read_bytes()[:2000])
    (mixed / "text.png").write_text("no image at all")
    Image.new("RGB", (20, 20), "red").save(mixed / "tiny.png")
    Image.new("RGB", (200, 200), "red").save(mixed / "flat.png")
    (mixed / "notes.txt").write_text("not looked at")
    labels = [c.label for c in CATEGORIES if c.index == 2]
    done = synthesize.synthesize(mixed, tmp_path / "set", size=96, categories=labels)
    assert (done.photographs, sum(done.counts.values())) == (6, 6)
    assert {
        item["label"] for part in done.counts for r in rows(done.out, part) for item in r["labels"]
    } == set(labels)
    for name in ("same cat.jpg", "broken.jpg", "text.png", "tiny.png", "flat.png"):
        assert sum(name in line for line in done.skipped) == 1, (name, done.skipped)
    assert (len(done.skipped), len(list((done.out / "real").iterdir()))) == (5, 6)
    notes = mixed / "notes.txt"
    assert done.warnings == [f"{mixed}: 1 file was skipped: 1 text: {notes}"]


def test_own_resolution_keeps_the_whole_photograph_first_and_nothing_is_enlarged(folder, tmp_path):
    done = synthesize.synthesize(folder, tmp_path / "set", per_photo=2, size=None)
    for split in done.counts:
        for row in rows(done.out, split):
            if row["uid"].endswith("_000"):
                assert (row["width"], row["height"]) == (220, 180)
            else:
                assert 110 <= row["width"] <= 220
                assert row["height"] == pytest.approx(row["width"] * 180 / 220, abs=1)
    done = synthesize.synthesize(folder, tmp_path / "large", size=400)
    assert {row["width"] for split in done.counts for row in rows(done.out, split)} == {180}
    done = synthesize.synthesize(folder, tmp_path / "many", per_photo=7, size=64, test_fraction=0)
    file = pq.ParquetFile(done.out / "data/labeled_train-00000-of-00001.parquet")
    sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
    assert sizes == [16, 16, 10]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_photo": 0}, "per_photo is 0"),
        ({"size": 16}, "size is 16; use at least 32"),
        ({"test_fraction": 1.0}, "test_fraction is 1.0"),
        ({"val_fraction": -0.1}, "val_fraction is -0.1"),
        ({"test_fraction": 0.5, "val_fraction": 0.5}, "leave no photograph for training"),
        ({"test_fraction": float("nan")}, "test_fraction is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"categories": ["colour"]}, "unknown 'colour'"),
    ],
)
def test_impossible_arguments(folder, tmp_path, changes, message):
    with pytest.raises(ArtifactNetError, match=message):
        synthesize.synthesize(folder, tmp_path / "set", **changes)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_used(folder, tmp_path):
    with pytest.raises(ArtifactNetError, match="no such folder"):
        synthesize.synthesize(tmp_path / "nowhere", tmp_path / "set")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ArtifactNetError, match="empty: holds no photographs; name their folder"):
        synthesize.synthesize(empty, tmp_path / "set")
    (empty / "bad.png").write_text("no image")
    with pytest.raises(ArtifactNetError, match=r"none of 1 photographs.*bad\.png"):
        synthesize.synthesize(empty, tmp_path / "set")
    with pytest.raises(ArtifactNetError, match="exists already"):
        synthesize.synthesize(folder, empty)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_full_disk_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    count = 0

    def full(self, data):
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(28, "No space left on device")
        return len(data)

    monkeypatch.setattr(Path, "write_bytes", full)
    words = rf"^{tmp_path / 'set'}: the data set could not be written: No space left"
    with pytest.raises(ArtifactNetError, match=words):
        synthesize.synthesize(folder, tmp_path / "set", size=96)
    assert list(tmp_path.iterdir()) == []
