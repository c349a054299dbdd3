"""The images of a report: found, named without giving away where they lay, and evenly chosen."""

import io
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artifactnet.explanation.report.items import (
    Item,
    file_items,
    record_items,
    short_names,
    spread_evenly,
)
from artifactnet.inference.inputs import Failure
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample


def png(value, size=(5, 7)):
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(value))
    return path


def shard(path, rows):
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("generator", pa.string())])
    table = [{"image": {"bytes": b, "path": None}, "generator": g} for b, g in rows]
    pq.write_table(pa.Table.from_pylist(table, schema=schema), path, row_group_size=2)
    return path


def nothing():
    raise AssertionError("nobody asked for this image")


@given(
    groups=st.lists(st.tuples(st.sampled_from([0, 1, None]), st.sampled_from("abc")), max_size=60),
    limit=st.integers(1, 70),
)
def test_spread_keeps_order_and_shares(groups, limit):
    items = [Item(str(k), nothing, g, label) for k, (label, g) in enumerate(groups)]
    kept = spread_evenly(items, limit)
    assert len(kept) == min(limit, len(items))
    numbers = [int(item.name) for item in kept]
    assert numbers == sorted(set(numbers))
    for key, count in Counter((i.label, i.generator) for i in items).items():
        have = sum((i.label, i.generator) == key for i in kept)
        assert abs(have - count * len(kept) / len(items)) <= 1


def test_records_become_items_that_load_on_demand():
    records = [
        Record("u", 0, "real", Annotation.CLEAN, "/data/set/real/u.jpg"),
        Record("u", 1, "sdxl", Annotation.MASK, "/data/set/part-0.parquet#7"),
    ]
    loaded = []

    def load(index):
        loaded.append(index)
        return Sample(records[index], np.zeros((2, 2, 3), np.uint8))

    first, second = record_items(records, load)
    assert loaded == []
    assert second.location == "/data/set/part-0.parquet#7"
    assert (first.name, first.generator, first.label) == ("real/u.jpg", "real", 0)
    assert (second.name, second.generator, second.label) == ("part-0.parquet#7", "sdxl", 1)
    assert second.load().record is records[1]
    assert loaded == [1]


@pytest.mark.parametrize(
    ("locations", "expected"),
    [
        ([], []),
        (["/a/b/c.png"], ["c.png"]),
        (["/a/b/c.png", "/a/d.png"], ["b/c.png", "d.png"]),
        (["a/b.png#1", "a/b.png#2"], ["b.png#1", "b.png#2"]),
        (["a.png", "b/c.png"], ["a.png", "b/c.png"]),
        (["/a/b.png", "c/d.png"], ["/a/b.png", "c/d.png"]),
        (["row 1", "row 2"], ["row 1", "row 2"]),
    ],
)
def test_short_names(locations, expected):
    assert short_names(locations) == expected


def test_folders_of_generators(tmp_path):
    save(tmp_path / "gan" / "deep" / "x.png", 10)
    save(tmp_path / "ldm" / "y.png", 20)
    save(tmp_path / "z.png", 30)
    (tmp_path / "notes.txt").write_text("no image")
    items = file_items([tmp_path], tmp_path / "out")
    found = {item.name: item for item in items}
    assert {n: i.generator for n, i in found.items()} == {
        "z.png": None,
        "gan/deep/x.png": "deep",
        "ldm/y.png": "ldm",
    }
    assert all(item.label is None for item in items)
    assert found["ldm/y.png"].load().tolist() == np.full((5, 7, 3), 20).tolist()


def test_rows_of_shards(tmp_path):
    rows = [(png(k), f"g{k % 2}") for k in range(5)]
    rows[3] = (b"nothing", "g1")
    path = shard(tmp_path / "labeled_test-0.parquet", rows)
    items = file_items([path, path], tmp_path / "out")
    assert [item.name for item in items] == [f"labeled_test-0.parquet#{k}" for k in range(5)]
    assert [item.generator for item in items] == ["g0", "g1", "g0", "g1", "g0"]
    assert items[4].load()[0, 0].tolist() == [4, 4, 4]
    assert items[0].load()[0, 0].tolist() == [0, 0, 0]
    with pytest.raises(ArtifactNetError, match="#3"):
        items[3].load()


def test_every_image_once_without_the_report(tmp_path):
    folder = tmp_path / "holiday"
    path = save(folder / "x.png")
    save(folder / "report" / "figures" / "roc.png")
    (tmp_path / "empty").mkdir()
    (folder / "broken.png").write_bytes(b"nothing")
    inputs = [folder, path, tmp_path / "none.png", tmp_path / "empty"]
    items = file_items(inputs, folder / "report")
    failures = [item.path for item in items if isinstance(item, Failure)]
    assert failures == [str(tmp_path / "none.png"), str(tmp_path / "empty")]
    broken, image = (item for item in items if isinstance(item, Item))
    assert (image.name, image.load().shape) == ("x.png", (5, 7, 3))
    with pytest.raises(ArtifactNetError, match=r"broken\.png"):  # when it is read
        broken.load()
    (alone,) = file_items([path], tmp_path / "out")
    assert (alone.name, alone.generator) == ("x.png", None)  # the folder of all is no generator


def test_bad_shards(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    shard(tmp_path / "b.parquet", [])
    items = file_items([tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "out")
    assert [type(item) for item in items] == [Failure, Failure]
    assert items[1].path.endswith("b.parquet")
