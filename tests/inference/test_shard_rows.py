"""Rows of parquet shards as images: read lazily, listed when bad, never trusted with a path."""

from __future__ import annotations

import io
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artifactnet.data import shards
from artifactnet.inference import collect
from artifactnet.inference.collect import iterate_shard, unsafe_name
from artifactnet.inference.inputs import Failure, ImageInput

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(seed: int = 0, size=(16, 16)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, rows, group=2, image=IMAGE):
    """Shard of (content, generator, uid) rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("image", image), ("generator", pa.string()), ("uid", pa.string())])
    table = pa.Table.from_pylist(
        [
            {"image": content and {"bytes": content, "path": None}, "generator": g, "uid": u}
            for content, g, u in rows
        ],
        schema=schema,
    )
    pq.write_table(table, path, row_group_size=group)
    return str(path)


def test_rows_are_sources(tmp_path):
    rows = [(png(i), "sdxl", f"u{i}") for i in range(5)]
    path = write(tmp_path / "labeled_test-00000-of-00001.parquet", rows)
    expected = [ImageInput(f"{path}#{i}", png(i), "sdxl", f"u{i}") for i in range(5)]
    assert list(iterate_shard(path)) == expected


def test_bad_rows_stop_nothing(tmp_path):
    rows = [
        (png(0), "sdxl", "a"),
        (None, "sdxl", "b"),
        (png(2), "../etc", "c"),
        (png(3), "sdxl", ""),
        (png(4), None, "e"),
        (png(5), "sdxl", "f"),
    ]
    path = write(tmp_path / "s.parquet", rows)
    found = list(iterate_shard(path))
    assert [type(x) for x in found] == [ImageInput, Failure, Failure, Failure, Failure, ImageInput]
    assert [x.path for x in found[1:5]] == [f"{path}#{i}" for i in (1, 2, 3, 4)]
    assert [x.reason for x in found[1:5]] == [
        "the row has no image bytes",
        "generator '../etc' cannot name a folder",
        "uid '' is empty",
        "generator None is not text",
    ]


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "a/b", "/a", "a\\b", "a\0b", "a\nb", "\ud800", "x" * 201, None, 3, b"a"],
)
def test_names_that_are_no_folder(name):
    assert unsafe_name(name)


@pytest.mark.parametrize("name", ["sdxl", "a b", "..a", "a..", "é", "x" * 200, "a,b", "{uid}"])
def test_names_that_are_fine(name):
    assert unsafe_name(name) is None


@given(st.text(max_size=12))
def test_no_name_leaves_its_folder(name):
    if unsafe_name(name) is None:
        assert os.path.dirname(os.path.normpath(os.path.join("/root/x", name))) == "/root/x"


def test_a_damaged_shard_is_one_failure(tmp_path):
    (tmp_path / "s.parquet").write_bytes(b"no parquet")
    (failure,) = iterate_shard(str(tmp_path / "s.parquet"))
    assert failure.path == str(tmp_path / "s.parquet")
    assert "cannot be read as parquet" in failure.reason
    assert "\n" not in failure.reason


def test_a_shard_without_the_columns(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "s.parquet")
    (failure,) = iterate_shard(str(tmp_path / "s.parquet"))
    assert "column 'generator' is missing" in failure.reason


def test_an_image_column_of_another_type(tmp_path):
    table = pa.table({"image": [b"x"], "generator": ["g"], "uid": ["u"]})
    pq.write_table(table, tmp_path / "s.parquet")
    (failure,) = iterate_shard(str(tmp_path / "s.parquet"))
    assert "'image' must be a struct" in failure.reason


def test_a_shard_without_rows(tmp_path):
    path = write(tmp_path / "s.parquet", [])
    assert list(iterate_shard(path)) == [Failure(path, "the shard has no rows")]


def test_a_row_group_is_read_when_its_rows_are_asked_for(tmp_path, monkeypatch):
    path = write(tmp_path / "s.parquet", [(png(i), "g", f"u{i}") for i in range(6)], group=2)
    read, groups = shards._read_group, []

    def noted(file, shard, group, columns):
        if any("image" in column for column in columns):
            groups.append(group)
        return read(file, shard, group, columns)

    monkeypatch.setattr(shards, "_read_group", noted)
    rows = iterate_shard(path)
    next(rows), next(rows)
    assert groups == [0]
    next(rows)
    assert groups == [0, 1]
    list(rows)
    assert groups == [0, 1, 2]


def test_shards_among_other_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data" / "labeled_test-00000-of-00002.parquet", [(png(), "g", "u")])
    write(tmp_path / "data" / "labeled_test-00001-of-00002.parquet", [(png(), "g", "v")] * 2)
    (tmp_path / "data" / "sd" / "x.y.png").parent.mkdir()
    (tmp_path / "data" / "sd" / "x.y.png").write_bytes(png())
    found = collect.resolve_inputs(["data/labeled_test-*.parquet", "data"], "out")
    sources = list(collect.iterate_images(found))
    assert [s.name for s in sources] == [
        "data/labeled_test-00000-of-00002.parquet#0",
        "data/labeled_test-00001-of-00002.parquet#0",
        "data/labeled_test-00001-of-00002.parquet#1",
        os.path.join("data", "sd", "x.y.png"),
    ]
    assert (sources[3].generator, sources[3].uid) == ("sd", "x.y")
    names = [collect.answer_name(s.name, found) for s in sources]
    assert names[0] == "labeled_test-00000-of-00002.parquet#0"
    assert len(set(names)) == 4
