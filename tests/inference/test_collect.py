"""What files, folders, patterns and shards stand for: every image once, failures listed."""

import io
import os
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artifactnet.data import shards
from artifactnet.inference import collect
from artifactnet.inference.collect import (
    ResolvedInputs,
    iterate_shard,
    resolve_inputs,
    sample_evenly,
)
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


# --- files, folders, patterns ---


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png())


def found(*inputs, skip="out") -> list[str]:
    return [source.name for source in collect.iterate_images(collect.resolve_inputs(inputs, skip))]


def test_files_folders_and_patterns(here):
    for name in ("a.png", "b/c.JPG", "b/d/e.webp", "f/g.png"):
        touch(here / name)
    (here / "b" / "notes.txt").write_text("no image")
    assert found("a.png") == ["a.png"]
    assert found("b") == [os.path.join("b", "c.JPG"), os.path.join("b", "d", "e.webp")]
    assert found("*/*.png") == ["f/g.png"]
    assert found("**/*.png") == ["a.png", "f/g.png"]
    assert found("b/notes.txt") == ["b/notes.txt"]  # named outright: tried


def test_each_image_once(here):
    touch(here / "b" / "c.png")
    assert found("b", "b/c.png", str(here / "b" / "c.png"), "b/*.png") == ["b/c.png"]


def test_a_name_with_brackets_is_a_name(here):
    for name in ("a[1].png", "a1.png"):
        touch(here / name)
    assert found("a[1].png") == ["a[1].png"]


def test_answers_among_the_images_are_not_images(here):
    touch(here / "photos" / "a.png")
    touch(here / "photos" / "out" / "heatmaps" / "a.png.png")
    assert found("photos", skip="photos/out") == ["photos/a.png"]


def test_what_is_not_there_is_told(here):
    (here / "empty").mkdir()
    touch(here / "a.png")
    result = collect.resolve_inputs(["a.png", "gone.png", "empty", "*.jpg"], "out")
    assert [f.path for f in result.failures] == ["gone.png", "empty", "*.jpg"]
    assert "no images" in result.failures[1].reason
    assert [source.name for source in collect.iterate_images(result)] == ["a.png"]


part = st.text("ab.é", min_size=1, max_size=3).filter(lambda t: t not in (".", ".."))


@given(st.lists(st.tuples(part, part), min_size=1, max_size=8, unique=True))
def test_names_of_answers_are_unique(names):
    """For any files in any folders, given one by one."""
    paths = [f"/x/{folder_name}/{name}.png" for folder_name, name in names]
    base = os.path.commonpath([os.path.dirname(p) for p in paths])
    result = collect.ResolvedInputs(tuple(paths), base, "/out", ())
    answers = [collect.answer_name(p, result) for p in paths]
    assert len(set(answers)) == len(paths)
    assert not any(name.startswith(("../", "/")) for name in answers)


# --- shards ---


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
        (png(5), "sdxl", "f"),
    ]
    path = write(tmp_path / "s.parquet", rows)
    found = list(iterate_shard(path))
    assert [type(x) for x in found] == [ImageInput, Failure, Failure, Failure, ImageInput]
    assert [x.path for x in found[1:4]] == [f"{path}#{i}" for i in (1, 2, 3)]
    assert [x.reason for x in found[1:4]] == [
        "the row has no image bytes",
        "generator '../etc' cannot name a folder",
        "uid '' is empty",
    ]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, [("s", "0"), ("s", "1")]),
        ({"label": [0, 1]}, [("s", "0"), ("s", "1")]),
        ({"generator": ["sdxl", None]}, [("sdxl", "0"), ("s", "1")]),
        ({"uid": ["a", "b"], "label": ["real", "fake"]}, [("s", "a"), ("s", "b")]),
        ({"generator": ["g", "h"], "uid": [None, "x" * 250]}, [("g", "0"), ("h", "x" * 250)]),
    ],
)
def test_images_without_generator_or_uid(tmp_path, columns, expected):
    """As data sets of images and labels are: named by their shard and row."""
    images = [{"bytes": png(i), "path": f"{i}.png"} for i in range(2)]
    path = str(tmp_path / "s.parquet")
    pq.write_table(pa.table({"image": images, **columns}), path)
    found = list(iterate_shard(path))
    assert [x.name for x in found] == [f"{path}#0", f"{path}#1"]
    assert [x.image for x in found] == [png(0), png(1)]
    assert [(x.generator, x.uid) for x in found] == expected


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (None, "cannot be read as parquet"),
        ({"x": [1]}, "column 'image' is missing"),
        ({"image": ["x"], "generator": ["g"], "uid": ["u"]}, "'image' must be a struct"),
        ([], "the shard has no rows"),
    ],
)
def test_an_unusable_shard_is_one_failure(tmp_path, table, reason):
    path = tmp_path / "s.parquet"
    if table is None:
        path.write_bytes(b"no parquet")
    elif table == []:
        write(path, [])
    else:
        pq.write_table(pa.table(table), path)
    (failure,) = iterate_shard(str(path))
    assert failure.path == str(path)
    assert reason in failure.reason
    assert "\n" not in failure.reason


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


# --- some of many ---


NOTHING = ResolvedInputs((), "", "", ())


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 50))
def test_sources_are_spread_evenly_and_no_failure_is_lost(kinds, count):
    items = [
        ImageInput(f"{k}", f"{k}") if usable else Failure(f"{k}", "broken")
        for k, usable in enumerate(kinds)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect, "iterate_images", lambda _: iter(items))
        found = list(sample_evenly(NOTHING, count))
    assert [x for x in found if isinstance(x, Failure)] == [
        x for x in items if isinstance(x, Failure)
    ]
    assert found == [x for x in items if x in found]  # in their order, none twice
    usable = [x for x in items if isinstance(x, ImageInput)]
    places = [usable.index(x) for x in found if isinstance(x, ImageInput)]
    assert len(places) == min(count, len(usable))
    gaps = [after - before for before, after in pairwise([*places, len(usable)])]
    assert not gaps or (places[0] == 0 and max(gaps) - min(gaps) <= 1)


def test_content_that_is_passed_over_is_let_go(monkeypatch):
    alive, most = 0, 0

    class Content(bytes):
        def __init__(self, *_):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    monkeypatch.setattr(
        collect, "iterate_images", lambda _: (ImageInput(str(k), Content(b"x")) for k in range(100))
    )
    assert [source.name for source in sample_evenly(NOTHING, 4)] == ["0", "25", "50", "75"]
    # each of the four while the next is made, and one that is passed over
    assert most <= 6


def test_files_of_a_folder(tmp_path):
    for k in range(9):
        (tmp_path / f"{k}.png").write_bytes(png())
    names = [item.name for item in sample_evenly(resolve_inputs([tmp_path], skip=""), 3)]
    assert names == [str(tmp_path / f"{k}.png") for k in (0, 3, 6)]
