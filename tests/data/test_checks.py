"""Counts of a data set, warnings about what could give the answer away, leaks between splits."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifactnet.config import DataConfig
from artifactnet.data import checks, duplicates
from artifactnet.data.checks import summarize_data
from artifactnet.data.duplicates import drop_duplicates
from artifactnet.data.sources import folder
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
JPG = {"kind": "jpg"}


class Memory:
    """A source without files of its own: content in memory."""

    def __init__(self, records, contents=None, warnings=()):
        self.records = records
        self.warnings = warnings
        self._contents = contents or [b"%d" % id(record) for record in records]

    def load(self, index):
        return Sample(self.records[index], np.zeros((2, 2, 3), dtype=np.uint8))

    def encoded(self, index):
        return self._contents[index]


def record(uid, label, generator="g", annotation=Annotation.NONE, categories=0, path=None):
    maker = generator if label else "real"
    place = path or f"memory#{uid}-{label}"
    return Record(uid, label, maker, annotation, place, categories, path)


def files(tmp_path, name, label, count, size=(40, 40), kind="png", **options) -> list[Record]:
    """Image files of random content."""
    where = tmp_path / name
    where.mkdir(parents=True, exist_ok=True)
    out = []
    for index in range(count):
        seed = list(f"{name}{label}{index}".encode())
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        path = where / f"{label}-{index}.{kind}"
        Image.fromarray(pixels).save(path, **options)
        out.append(record(f"{name}{index}", label, path=str(path)))
    return out


def test_counts():
    texture, edge = CATEGORIES[0], CATEGORIES[1]
    records = [
        record("a", 0, annotation=Annotation.CLEAN),
        record("a", 1, "sdxl", Annotation.MASK, texture.bit | edge.bit),
        record("a", 1, "flux", Annotation.MASK, texture.bit),
        record("b", 1, "flux", Annotation.MASK),
        record("c", 1, "flux"),
        record("d", 1, "flux", Annotation.CLEAN),
    ]
    summary = summarize_data({"train": Memory(records)}, "counts")
    counts = summary["splits"]["train"]
    assert (counts["images"], counts["uids"]) == (6, 4)
    assert counts["class"] == {"real": 1, "fake": 5}
    assert counts["generator"] == {"flux": 4, "real": 1, "sdxl": 1}
    assert counts["annotation"] == {"none": 1, "clean": 2, "mask": 3}
    assert (counts["category"][texture.label], counts["category"][edge.label]) == (2, 1)
    assert (counts["category"]["uncategorized"], sum(counts["category"].values())) == (1, 4)
    assert summary["warnings"] == []
    assert "files" not in counts
    json.dumps(summary, allow_nan=False)


def test_files_are_described(tmp_path):
    real = files(tmp_path, "t", 0, 3, (30, 40), "jpg", quality=90)
    fake = files(tmp_path, "t", 1, 2, (30, 40), "jpg", quality=90)
    summary = summarize_data({"train": Memory(real + fake)}, "full")
    found = summary["splits"]["train"]["files"]["real"]
    assert (found["probed"], found["format"]) == (3, {"JPEG": 3})
    assert found["jpeg_quality"] == {"min": 90.0, "median": 90.0, "max": 90.0}
    assert found["size"]["median"] == round((30 * 40) ** 0.5, 1)
    assert summary["warnings"] == []
    json.dumps(summary, allow_nan=False)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        ({"kind": "jpg"}, {"kind": "png"}, "train: file formats differ: real JPEG 100%, fake PNG"),
        ({"size": (40, 40)}, {"size": (50, 40)}, "train: median sizes differ: real 40 px, fake 45"),
        ({"size": (40, 40)}, {"size": (43, 40)}, None),
        (JPG | {"quality": 95}, JPG | {"quality": 80}, "train: median JPEG qualities differ"),
        (JPG | {"quality": 90}, JPG | {"quality": 86}, None),
    ],
)
def test_differences_of_the_classes_are_reported(tmp_path, real, fake, message):
    records = files(tmp_path, "t", 0, 4, **real) + files(tmp_path, "t", 1, 4, **fake)
    warnings = summarize_data({"train": Memory(records)}, "full")["warnings"]
    assert [text[: len(message or "")] for text in warnings] == ([message] if message else [])
    assert summarize_data({"train": Memory(records)}, "counts")["warnings"] == []


def test_images_without_a_path(tmp_path):
    jpg = Path(files(tmp_path, "a", 0, 1, kind="jpg")[0].location).read_bytes()
    png = Path(files(tmp_path, "a", 1, 1, kind="png")[0].location).read_bytes()
    both = [record("a", 0), record("a", 1)]
    (warning,) = summarize_data({"test": Memory(both, [jpg, png])}, "full")["warnings"]
    assert "file formats differ" in warning
    bare = type("Bare", (), {"records": both})()  # neither path nor content
    found = summarize_data({"train": bare}, "full")["splits"]["train"]["files"]["real"]
    empty = {"size": None, "jpeg_quality": None, "unreadable": []}
    assert found == {"probed": 0, "format": {}, **empty}


def test_missing_classes_and_the_warnings_of_sources_are_reported_once():
    (warning,) = summarize_data({"val": Memory([record("a", 1)])}, "counts")["warnings"]
    assert warning == "val: no real images"
    sources = [Memory([record(u, 0), record(u, 1)], warnings=("odd",)) for u in "ab"]
    splits = dict(zip(("train", "test"), sources, strict=True))
    assert summarize_data(splits, "counts")["warnings"] == ["odd"]


def test_unreadable_images_are_reported_not_fatal(tmp_path):
    records = files(tmp_path, "t", 0, 3) + files(tmp_path, "t", 1, 3)
    Path(records[1].location).write_bytes(b"junk")
    Path(records[4].location).unlink()
    summary = summarize_data({"train": Memory(records)}, "full")
    (warning,) = summary["warnings"]
    assert warning.startswith("train: 2 probed images are unreadable, e.g. ")
    assert records[1].location in warning
    assert summary["splits"]["train"]["files"]["real"]["probed"] == 2


def test_uids_in_two_splits_are_an_error():
    splits = {"train": Memory([record("a", 0)]), "test": Memory([record("a", 1)])}
    with pytest.raises(ArtifactNetError, match="uid 'a' is in both train and test"):
        summarize_data(splits, "counts")
    assert summarize_data(splits, "off") == {"check": "off", "splits": {}, "warnings": []}


@pytest.fixture
def leaky(tmp_path):
    """Train image 1 is also in val and test; val image 2 is also in test."""
    parts = {}
    for name in ("train", "val", "test"):
        parts[name] = files(tmp_path, name, 0, 4) + files(tmp_path, name, 1, 4)
    copy = Path(parts["train"][1].location).read_bytes()
    Path(parts["val"][5].location).write_bytes(copy)
    Path(parts["test"][3].location).write_bytes(copy)
    Path(parts["test"][6].location).write_bytes(Path(parts["val"][2].location).read_bytes())
    return {name: Memory(records) for name, records in parts.items()}


def test_identical_images_in_two_splits_are_an_error(leaky):
    with pytest.raises(ArtifactNetError, match=r"^3 images of one split are in another") as caught:
        summarize_data(leaky, "full")
    text = str(caught.value)
    assert leaky["train"].records[1].location in text
    assert leaky["test"].records[3].location in text
    assert "data.on_error=skip" in text
    assert summarize_data(leaky, "counts")["splits"]["train"]["images"] == 8


def test_drop_duplicates(leaky):
    splits, lines = drop_duplicates(leaky)
    assert len(lines) == 3
    assert any(leaky["val"].records[5].location in line for line in lines)
    assert [len(source.records) for source in splits.values()] == [7, 6, 8]
    assert leaky["train"].records[1] not in splits["train"].records
    assert summarize_data(splits, "full")["warnings"] == []
    again, none = drop_duplicates(splits)
    assert none == []
    assert again == splits


def test_a_repetition_inside_a_split_is_allowed(tmp_path):
    records = files(tmp_path, "t", 0, 2) + files(tmp_path, "t", 1, 2)
    Path(records[1].location).write_bytes(Path(records[0].location).read_bytes())
    other = files(tmp_path, "v", 0, 2) + files(tmp_path, "v", 1, 2)
    splits = {"train": Memory(records), "val": Memory(other)}
    assert summarize_data(splits, "full")["warnings"] == []


def test_identical_images_without_paths(monkeypatch):
    train = Memory([record("a", 0), record("a", 1)], [b"content x", b"content y"])
    test = Memory([record("b", 0), record("b", 1)], [b"content z", b"content y"])
    splits = {"train": train, "test": test}
    with pytest.raises(ArtifactNetError, match=r"memory#a-1 \(train\) = memory#b-1 \(test\)"):
        summarize_data(splits, "full")
    monkeypatch.setattr(duplicates, "MAX_ENCODED", 3)
    warnings = summarize_data(splits, "full")["warnings"]
    assert "4 images inside shards were not compared across splits" in warnings


def test_an_unreadable_row_is_reported_not_fatal():
    class Broken(Memory):
        def encoded(self, index):
            raise ArtifactNetError(f"{self.records[index].location}: the row has no image bytes")

    sources = [Broken([record(uid, 0), record(uid, 1)]) for uid in "ab"]
    splits = dict(zip(("train", "test"), sources, strict=True))
    warnings = summarize_data(splits, "full")["warnings"]
    problem = "2 probed images are unreadable"
    assert [text.split(",")[0] for text in warnings] == [f"{name}: {problem}" for name in splits]
    assert drop_duplicates(splits) == (splits, [])


def test_at_most_some_images_are_probed(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "PROBED", 10)
    monkeypatch.setattr(checks, "RUN", 2)
    records = files(tmp_path, "t", 0, 40) + files(tmp_path, "t", 1, 11)
    found = summarize_data({"train": Memory(records)}, "full")["splits"]["train"]["files"]
    assert found["real"]["probed"] == 10
    assert 8 <= found["fake"]["probed"] <= 10


@pytest.mark.skipif(not (SHARED / "migan_edits").is_dir(), reason="needs shared/data/migan_edits")
def test_real_edits_are_clean():
    config = DataConfig(name="folder", root=str(SHARED / "migan_edits"))
    summary = summarize_data(folder.build_folder_splits(config, 0), "full")
    assert summary["warnings"] == []
    assert summary["splits"]["val"]["annotation"] == {"none": 0, "clean": 63, "mask": 63}


@pytest.mark.skipif(not (SHARED / "cifake").is_dir(), reason="needs shared/data/cifake")
def test_real_cifake_leaks_one_image():
    splits = folder.build_folder_splits(DataConfig(name="folder", root=str(SHARED / "cifake")), 0)
    with pytest.raises(ArtifactNetError, match=r"^1 images .*5666_7\.jpg.*3833_7\.jpg"):
        summarize_data(splits, "full")
    clean, lines = drop_duplicates(splits)
    assert len(lines) == 1
    assert len(clean["train"].records) + len(clean["val"].records) == 5999
    (warning,) = summarize_data(clean, "full")["warnings"]
    assert "file stems" in warning
