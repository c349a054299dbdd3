"""What inputs stand for, on a disk and behind URLs."""

import json
import os
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from cluster_jobs import png, tar_of, write_shard

from artifactnet.cluster.reading import read_unit
from artifactnet.cluster.sources import list_units
from artifactnet.cluster.storage import Storage, local_path, split_url
from artifactnet.cluster.units import Unit
from artifactnet.data.image_files import Skipped
from artifactnet.inference.collect import iterate_images, resolve_inputs
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.inference.lines import find_version
from artifactnet.types import ArtifactNetError


def units_of(sources, out="", together=10, skipped=None):
    sources = [str(s) for s in sources]
    storage = Storage(sources, os.getcwd())
    skipped = Skipped() if skipped is None else skipped
    return list(list_units(sources, storage, str(out), together, skipped))


def items_of(sources, **options):
    storage = Storage([str(s) for s in sources], os.getcwd())
    return [i for unit in units_of(sources, **options) for i in read_unit(unit, storage) if i]


def name_of(source):
    return source.name if isinstance(source, ImageInput) else source.path


def names_of(sources, **options):
    return [name_of(item.source) for item in items_of(sources, **options)]


def fill(folder, count=25):
    for k in range(count):
        path = folder / f"{k % 3}" / f"{k:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(k))


@pytest.fixture
def memory():
    """A file system behind memory:// URLs."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


def test_a_folder_means_what_it_means_without_an_engine(here):
    """Names, order, generators, uids, sizes and times are those of `predict`."""
    fill(here / "photos")
    (here / "photos" / "broken.jpg").write_bytes(b"text")
    (here / "photos" / "note.txt").write_text("text")
    (here / "photos" / ".hidden.png").write_bytes(png())
    write_shard(here / "shards" / "s.parquet", [png(k) for k in range(5)])
    sources = ["photos", "shards/*.parquet", "photos/0/000.png"]
    skipped, own = Skipped(), Skipped()
    mine = items_of(sources, skipped=own)
    local = list(iterate_images(resolve_inputs(sources, ""), skipped))
    order = [i for i in mine if not name_of(i.source).startswith("shards")]
    order += [i for i in mine if name_of(i.source).startswith("shards")]
    assert [name_of(i.source) for i in order] == [name_of(s) for s in local]
    assert own.counts == skipped.counts == Counter({"text": 1, "hidden": 1})
    for item, source in zip(order, local, strict=True):
        if isinstance(source, Failure):
            assert item.source == source
            continue
        assert (item.source.generator, item.source.uid) == (source.generator, source.uid)
        assert item.version == find_version(source)
        content = source.image
        assert item.source.image == (
            content if isinstance(content, bytes) else Path(content).read_bytes()
        )


def test_units_survive_json_and_have_ids_of_their_own(here):
    fill(here / "photos")
    write_shard(here / "s.parquet", [png(k) for k in range(50)], rows_per_group=5)
    (here / "t.tar").write_bytes(tar_of({"a.png": png()}))
    units = units_of(["photos", "s.parquet", "t.tar"])
    assert all(Unit.from_json(unit.to_json()) == unit for unit in units)
    assert len({unit.id for unit in units}) == len(units) > 7
    assert [unit.id for unit in units] == [u.id for u in units_of(["photos", "s.parquet", "t.tar"])]
    rows = [u for u in units if u.kind == "rows"]
    assert [(u.start, u.end, u.images) for u in rows] == [(2 * k, 2 * k + 2, 10) for k in range(5)]


def test_a_new_file_changes_its_own_unit_alone(here):
    fill(here / "photos", 400)
    before = {unit.id for unit in units_of(["photos"])}
    (here / "photos" / "0" / "0000.png").write_bytes(png())
    after = {unit.id for unit in units_of(["photos"])}
    assert len(before) > 20
    assert len(after - before) <= 2
    os.utime(here / "photos" / "1" / "001.png", (5, 5))
    assert len({unit.id for unit in units_of(["photos"])} - after) == 1


def test_units_are_about_as_large_as_asked_for(here):
    for k in range(3000):
        (here / f"{k}.png").touch()
    sizes = [len(u.entries) for u in units_of([str(here / "*.png")], together=50)]
    assert sum(sizes) == 3000
    assert max(sizes) <= 100
    assert 40 <= sum(sizes[:-1]) / (len(sizes) - 1) <= 60
    assert min(sizes[:-1]) >= 25


def test_folders_patterns_and_shards_behind_a_url(memory):
    for k in range(6):
        memory.pipe(f"/bucket/photos/{k % 2}/{k}.png", png(k))
    memory.pipe("/bucket/photos/0/note.txt", b"text")
    memory.pipe("/bucket/photos/0/no_suffix", png(9))
    memory.pipe("/bucket/photos/0/broken.jpg", b"text")
    memory.pipe("/bucket/photos/.hidden/1.png", png(1))
    memory.pipe("/bucket/photos/0/s.tar", tar_of({"x.png": png(7), "y.txt": b"y"}))
    base = "memory://bucket/photos"
    skipped = Skipped()
    assert names_of([base], skipped=skipped) == [
        f"{base}/0/0.png", f"{base}/0/2.png", f"{base}/0/4.png", f"{base}/0/broken.jpg",
        f"{base}/0/no_suffix", f"{base}/1/1.png", f"{base}/1/3.png", f"{base}/1/5.png",
    ]  # fmt: skip
    assert skipped.counts == Counter({"hidden": 1, "archive": 1})
    assert names_of([f"{base}/0/*.tar"]) == [f"{base}/0/s.tar#x.png"]
    assert names_of([f"{base}/**/[1-4].png"]) == [
        f"{base}/0/2.png", f"{base}/0/4.png", f"{base}/1/1.png", f"{base}/1/3.png",
    ]  # fmt: skip
    assert names_of([f"{base}/1", f"{base}/1/?.png"]) == names_of([f"{base}/1"])
    assert names_of([base], out=f"{base}/0") == names_of([f"{base}/1"])
    (found,) = items_of([f"{base}/1/1.png"])
    assert found.source == ImageInput(f"{base}/1/1.png", png(1), "1", "1")
    assert found.version.size == len(png(1))


def test_parquet_and_manifests_behind_a_url(memory, here):
    write_shard(here / "s.parquet", [png(k) for k in range(5)])
    memory.pipe("/b/s.parquet", (here / "s.parquet").read_bytes())
    memory.pipe("/b/img/1.png", png(1))
    memory.pipe("/b/m.jsonl", b'{"image": "img/1.png", "uid": "u"}\n\n{"image": "img/2.png"}\n')
    items = items_of(["memory://b/s.parquet"], together=2)
    assert [(i.source.name, i.source.uid) for i in items] == [
        (f"memory://b/s.parquet#{k}", str(k)) for k in range(5)
    ]
    first, second = items_of(["memory://b/m.jsonl"])
    assert first.source == ImageInput("memory://b/img/1.png", png(1), "img", "u")
    assert second.source == Failure("memory://b/img/2.png", "no such file")
    assert second.unread


def test_a_manifest_is_cut_by_lines(here):
    fill(here / "img", 23)
    images = [str(p.relative_to(here)) for p in sorted((here / "img").rglob("*.png"))]
    rows = [json.dumps({"image": name}) for name in images]
    rows[3:3] = ["", "no json", '{"uid": "x"}', '{"image": 7}']
    (here / "m.jsonl").write_text("\ufeff" + "\n".join(rows))
    units = units_of(["m.jsonl"], together=5)
    assert [unit.images for unit in units] == [5, 5, 5, 5, 5, 1]
    items = items_of(["m.jsonl"], together=5)
    assert [name_of(i.source) for i in items] == [
        *images[:3], "m.jsonl:5", "m.jsonl:6", "m.jsonl:7", *images[3:]
    ]  # fmt: skip
    assert [i.source.reason for i in items[3:6]] == [
        "not readable as JSON (Expecting value: line 1 column 1 (char 0))",
        "'image' must be a path, not None", "'image' must be a path, not 7",
    ]  # fmt: skip
    (here / "m.jsonl").write_text((here / "m.jsonl").read_text().replace("000", "0x0"))
    storage = Storage([], os.getcwd())
    (changed,) = [i for i in read_unit(units[0], storage)]
    assert changed.source == Failure("m.jsonl", "the manifest was changed after the job began")


def test_lines_that_are_added_to_a_manifest_change_no_unit_before_them(here):
    rows = [json.dumps({"image": f"{k}.png"}) + "\n" for k in range(20)]
    (here / "m.jsonl").write_text("".join(rows))
    before = [u.id for u in units_of(["m.jsonl"], together=5)]
    (here / "m.jsonl").write_text("".join([*rows, rows[0]]))
    assert [u.id for u in units_of(["m.jsonl"], together=5)][:4] == before


def test_a_manifest_may_name_files_of_other_places(memory, here):
    memory.pipe("/b/1.png", png(1))
    (here / "2.png").write_bytes(png(2))
    (here / "sub").mkdir()
    rows = ["memory://b/1.png", str(here / "2.png"), "../2.png", f"file://{here}/2.png",
            "https://example.org/x.png", "nowhere://x/y.png"]  # fmt: skip
    (here / "sub" / "m.jsonl").write_text("".join(json.dumps({"image": r}) + "\n" for r in rows))
    items = items_of(["sub/m.jsonl"])
    assert [getattr(i.source, "image", None) for i in items[:4]] == [png(1), png(2), png(2), png(2)]
    assert "reads no web pages" in items[4].source.reason
    assert "cannot be opened" in items[5].source.reason


def test_broken_shards_and_tars_are_failures_and_stop_nothing(here):
    write_shard(here / "1.parquet", [png(0)], column="picture")
    write_shard(here / "2.parquet", [png(1), b"", png(3)])
    (here / "3.parquet").write_bytes(b"PAR1 and no more")
    write_shard(here / "4.parquet", [])
    whole = tar_of({f"{k}.png": png(k) for k in range(3)})
    (here / "5.tar").write_bytes(whole[: len(png(0)) + len(png(1)) + 1600])
    (here / "6.png").write_bytes(png(6))
    items = items_of(["*.parquet", "*.tar", "6.png"])
    found = {name_of(i.source): getattr(i.source, "reason", "") for i in items}
    assert len(found) == len(items)
    assert found.pop("1.parquet") == "column 'image' is missing; it has picture"
    assert found.pop("3.parquet").startswith("cannot be read as parquet (")
    assert found.pop("4.parquet") == "the shard has no rows"
    assert found.pop("5.tar").startswith("the tar is damaged or cut (")
    assert found.pop("2.parquet#1") == "the row has no image bytes"
    assert found == dict.fromkeys(
        ("2.parquet#0", "2.parquet#2", "5.tar#0.png", "5.tar#1.png", "6.png"), ""
    )


def test_a_file_that_went_away_is_a_failure(here):
    fill(here / "photos", 2)
    (unit,) = units_of(["photos"])
    (here / "photos" / "0" / "000.png").unlink()
    gone, there = read_unit(unit, Storage([], str(here)))
    assert gone.source == Failure("photos/0/000.png", "no such file")
    assert gone.unread
    assert isinstance(there.source, ImageInput)


def test_a_file_that_goes_away_while_it_is_read_is_a_failure(here, monkeypatch):
    (here / "a.png").write_bytes(png(0))
    (here / "m.jsonl").write_text('{"image": "a.png"}')
    (unit,) = units_of(["m.jsonl"])
    read = Storage.read

    def read_and_remove(self, name, accept=None):
        content = read(self, name, accept)
        os.unlink(name)
        return content

    monkeypatch.setattr(Storage, "read", read_and_remove)
    (gone,) = read_unit(unit, Storage([], str(here)))
    assert gone.source == Failure("a.png", "no such file")
    assert gone.unread


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nothing", r"^nothing: no such file or folder$"),
        ("no*.png", r"^no\*.png: no such file or folder$"),
        ("-", r"^-: the ray engine reads files, not standard input$"),
        ("empty", r"^empty: no images in this folder$"),
        ("shards", r"^shards: no images in this folder; it holds 1 .*: shards/s.parquet; name "
         r"shards by a pattern, as in 'FOLDER/\*.tar'$"),
        ("memory://nowhere/x", r"^memory://nowhere/x: no such file, or no images in this folder$"),
        ("https://example.org/a.png", r"^https://example.org: the ray engine reads no web pages"),
        ("nowhere://x/y", r"^nowhere://x: cannot be opened \(Protocol not known: nowhere\)$"),
        ("empty.jsonl", r"^empty.jsonl: the manifest names no image$"),
    ],
)  # fmt: skip
def test_an_input_that_stands_for_nothing_is_one_error_at_the_start(here, memory, source, reason):
    (here / "empty").mkdir()
    (here / "empty.jsonl").write_text("\n\n")
    write_shard(here / "shards" / "s.parquet", [png(0)])
    (here / "a.png").write_bytes(png(0))
    with pytest.raises(ArtifactNetError, match=reason):
        units_of(["a.png", source])


@pytest.mark.parametrize(
    ("url", "root", "name"),
    [
        ("s3://b/x/y.tar?region=eu", "s3://b?region=eu", "s3://b/x/y.tar"),
        ("s3://key:secret@b/x", "s3://key:secret@b", "s3://b/x"),
        ("abfs://box@account/x/", "abfs://box@account", "abfs://box@account/x"),
        ("gs://b/x/00??.tar", "gs://b", "gs://b/x/00??.tar"),
        ("hdfs://h:8020/x?user=me", "hdfs://h:8020?user=me", "hdfs://h:8020/x"),
    ],
)
def test_names_hold_no_credentials_and_no_options(url, root, name):
    assert split_url(url) == (root, name)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///a/b#1.png", "/a/b#1.png"),
        ("file:///a/00?.png", "/a/00?.png"),
        ("file:///a%20b", "/a b"),
        ("FILE://localhost/a", "/a"),
        ("file://photos/a.png", "photos/a.png"),
        ("s3://b/a%20b", "s3://b/a%20b"),
    ],
)
def test_urls_of_files_are_paths(url, path):
    assert local_path(url) == path


def test_a_pattern_does_not_look_into_the_answers(memory, here):
    write_shard(here / "s.parquet", [png(0)])
    for name in ("in/s", "out/predictions/part-1"):
        memory.pipe(f"/b/{name}.parquet", (here / "s.parquet").read_bytes())
    out = "memory://b/out"
    assert names_of(["memory://b/**/*.parquet"], out=out) == ["memory://b/in/s.parquet#0"]
    assert names_of(["memory://b/*/**/*.parquet", "memory://b/in/*"], out=out) == [
        "memory://b/in/s.parquet#0"
    ]


def test_names_that_are_no_text(here):
    path = os.fsencode(str(here)) + b"/caf\xe9.png"
    with open(path, "wb") as file:
        file.write(png(1))
    (item,) = items_of([str(here)])
    assert item.source.image == png(1)
    assert os.fsencode(item.source.name) == path
