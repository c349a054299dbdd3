"""Counts of a data set, warnings about what could give the answer away, leaks between splits."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from artifactnet.config import DataConfig
from artifactnet.data import checks, duplicates
from artifactnet.data.checks import summarize_data
from artifactnet.data.duplicates import drop_duplicates, find_identical_files
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
    zeros = {item.label: 0 for item in CATEGORIES}
    assert summary["splits"]["train"] == {
        **{"images": 6, "uids": 4, "class": {"real": 1, "fake": 5}},
        "generator": {"flux": 4, "real": 1, "sdxl": 1},
        "annotation": {"none": 1, "clean": 2, "mask": 3},
        "category": {**zeros, texture.label: 2, edge.label: 1, "uncategorized": 1},
    }
    assert summary["warnings"] == []
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
    Path(parts["val"][0].location).write_bytes(copy)
    Path(parts["test"][3].location).write_bytes(copy)
    Path(parts["test"][0].location).write_bytes(Path(parts["val"][2].location).read_bytes())
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
    assert any(leaky["val"].records[0].location in line for line in lines)
    assert [len(source.records) for source in splits.values()] == [7, 6, 8]
    assert leaky["train"].records[1] not in splits["train"].records
    assert summarize_data(splits, "full")["warnings"] == []
    again, none = drop_duplicates(splits)
    assert none == []
    assert again == splits


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


@pytest.mark.skipif(not (SHARED / "cifake").is_dir(), reason="needs shared/data/cifake")
def test_real_cifake_leaks_one_image():
    splits = folder.build_folder_splits(DataConfig(name="folder", root=str(SHARED / "cifake")), 0)
    with pytest.raises(ArtifactNetError, match=r"^1 images .*5666_7\.jpg.*3833_7\.jpg"):
        summarize_data(splits, "full")
    clean, lines = drop_duplicates(splits)
    assert (len(lines), len(clean["train"].records) + len(clean["val"].records)) == (1, 5999)
    stems, near = summarize_data(clean, "full")["warnings"]
    assert "file stems" in stems
    assert near.startswith("2 pairs of images look nearly the same")
    assert re.search(r"4327_3\.jpg.*3885_3\.jpg", near)  # one car, one pixel apart


# Contents that agree in size, or in size and middle, more often than chance.
bodies = st.builds(
    lambda size, head, middle: (
        head + b"." * size + middle + b"." * (size - len(middle)) if size else head
    ),
    st.sampled_from([0, 10, 9000]),
    st.sampled_from([b"a", b"b"]),
    st.sampled_from([b"x", b"y"]),
)


def write(folder, contents):
    paths = []
    for index, body in enumerate(contents):
        path = folder / f"{index}.bin"
        path.write_bytes(body)
        paths.append(str(path))
    return paths


@given(st.lists(st.tuples(bodies, st.sampled_from("AB")), max_size=12))
@settings(max_examples=60, deadline=None)
def test_equals_the_comparison_of_every_pair(tmp_path_factory, files):
    paths = write(tmp_path_factory.mktemp("files"), [body for body, _ in files])
    groups = [group for _, group in files]
    expected = {}
    for index, (body, _) in enumerate(files):
        expected.setdefault(body, []).append(index)
    sets = [same for same in expected.values() if len(same) > 1]
    assert find_identical_files(paths) == sorted(sets)
    spanning = [same for same in sets if len({groups[k] for k in same}) > 1]
    assert find_identical_files(paths, groups) == sorted(spanning)


def test_opens_nothing_that_cannot_matter(tmp_path, monkeypatch):
    paths = write(tmp_path, [b"1", b"22", b"333", b"333"])
    monkeypatch.setattr(duplicates, "open", None, raising=False)
    assert find_identical_files(paths, ["train", "test", "train", "train"]) == []


def test_an_unreadable_file_equals_no_other(tmp_path):
    paths = [str(tmp_path / "gone"), str(tmp_path / "gone too"), *write(tmp_path, [b"1", b"1"])]
    assert find_identical_files(paths) == [[2, 3]]
