"""What counts as an image is its content, for every command; nothing is left out unsaid."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artifactnet.annotation.files import find_pairs
from artifactnet.config import DataConfig
from artifactnet.data.datamodule import build_splits, drop_and_summarize
from artifactnet.data.image_files import (
    HEAD,
    FileWalk,
    Skipped,
    image_format,
    is_image,
    list_images,
    why_no_image,
)
from artifactnet.data.image_folders import ImageFolder
from artifactnet.data.images import decode_image
from artifactnet.explanation.report.items import Item, file_items
from artifactnet.inference.collect import iterate_images, resolve_inputs
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.types import ArtifactNetError


def content(kind="PNG", seed=0, mode="RGB", **options) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def put(path: Path, data: bytes | None = None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content(seed=sum(map(ord, str(path))), **options) if data is None else data)
    return path


def names(folder, **options) -> list[str]:
    return [name for name, _ in list_images(folder, **options)]


def predicted(*inputs, out="") -> list[str]:
    found = iterate_images(resolve_inputs(inputs, out))
    return [item.name for item in found if isinstance(item, ImageInput)]


# --- content ---

KINDS = [
    *[("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"mode": "CMYK"}), ("MPO", {})],
    *[("PNG", {}), ("PNG", {"mode": "P"}), ("GIF", {"mode": "P"}), ("WEBP", {})],
    *[("WEBP", {"lossless": True}), ("BMP", {}), ("BMP", {"mode": "1"}), ("DIB", {}), ("TIFF", {})],
    *[("TIFF", {"big_tiff": True}), ("PPM", {}), ("PPM", {"mode": "L"}), ("PPM", {"mode": "1"})],
    *[("JPEG2000", {}), ("JPEG2000", {"no_jp2": True}), ("AVIF", {}), ("ICO", {}), ("TGA", {})],
    *[("TGA", {"mode": "L"}), ("SGI", {}), ("PCX", {}), ("DDS", {}), ("ICNS", {})],
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_formats_are_recognised_under_any_name(tmp_path, kind, options):
    data = content(kind, **options)
    for name in ("a", "a.jpe", "a.txt", "ä.json", "a.JPG"):
        path = put(tmp_path / name, data)
        assert is_image(path)
        assert decode_image(str(path), name).ndim == 3
    assert len(names(tmp_path)) == 5
    said = image_format(data[:HEAD])
    assert said == Image.open(io.BytesIO(data)).format or (kind, said) == ("MPO", "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"file,license\na.jpg,CC0\n", "text"),
        ("Grüße, 世界".encode() * 9, "text"),
        (b"<html><body>404 Not Found</body></html>", "text"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "text"),
        ("a,b\n".encode("utf-16"), "text"),
        (b"BMW and P6, two cars", "text"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "video"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81", "video"),
        (b"RIFF\0\0\0\0WAVEfmt ", "not an image by content"),
        (b"PK\x03\x04\x14\0", "archive"),
        (b"\x1f\x8b\x08\0", "archive"),
        (b"PAR1\x15\x04", "parquet file (name it to read its rows)"),
        (b"\x93NUMPY\x01\0v\0{'descr': '<f4'}", "not an image by content"),
        (b"\x89PNG\r\n", "not an image by content"),
        (b"\xff\xd8", "not an image by content"),
        (b"%PDF-1.7\n\xe2\xe3\xcf\xd3", "not an image by content"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF image, which this Pillow cannot read"),
        (b"\xff\x0a\xfa\x00", "JXL image, which this Pillow cannot read"),
        (bytes(range(200, 256)), "not an image by content"),
    ],
)
def test_other_content_has_a_reason_whatever_its_name(tmp_path, data, reason):
    for name in ("a.jpg", "a.png", "a"):
        assert why_no_image(str(put(tmp_path / name, data))) == reason
    skipped = Skipped()
    assert list(list_images(tmp_path, skipped)) == []
    assert skipped.counts == {reason: 3}


@given(st.binary(max_size=80))
def test_no_first_bytes_break_it(head):
    image_format(head)


@given(st.text(min_size=1, max_size=70))
def test_text_is_no_image(text):
    head = text.encode("utf-8", "replace")
    assert image_format(head[:HEAD]) is None or head[0] < 32 or head[0] in b"P"


def test_pipes_broken_links_and_closed_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "self.png").symlink_to("self.png")
    closed = put(tmp_path / "closed.png")
    closed.chmod(0)
    skipped = Skipped()
    assert names(tmp_path, skipped=skipped) == (["closed.png"] if os.geteuid() == 0 else [])
    assert skipped.counts["not a file"] == 1
    assert skipped.counts["broken link"] == 2


def test_only_the_first_bytes_are_read_and_once(tmp_path, monkeypatch):
    for k in range(5):
        put(tmp_path / f"{k}.bin", content() + bytes(100_000))
    read, sizes = os.read, []
    monkeypatch.setattr(os, "read", lambda handle, n: sizes.append(n) or read(handle, n))
    assert len(names(tmp_path)) == 5
    assert sizes == [HEAD] * 5


# --- links, hidden files, the output ---


def test_loops_end_and_what_links_lead_to_is_listed_once(tmp_path):
    root, outside = tmp_path / "photos", tmp_path / "elsewhere"
    put(root / "a.jpg"), put(root / "deep" / "b.jpg"), put(outside / "z.jpg")
    put(outside / "sub" / "y.png")
    (root / "linked").symlink_to("../elsewhere")
    (root / "again").symlink_to("../elsewhere/")  # sorted before the other
    (root / "loop").symlink_to(".")
    (root / "deep" / "up").symlink_to("../..")  # to the parent of all
    (root / "deep" / "down").symlink_to(root / "deep")
    (outside / "back").symlink_to(root)
    (root / "0.jpg").symlink_to("a.jpg")
    (root / "one.jpg").symlink_to("../elsewhere/sub/y.png")
    expected = ["a.jpg", "again/sub/y.png", "again/z.jpg", "deep/b.jpg"]
    skipped = Skipped()
    assert sorted(names(root, skipped=skipped)) == expected
    assert skipped.counts == {"link to what is listed already": 6}
    assert sorted(predicted(root)) == sorted(str(root / name) for name in expected)
    items = file_items([root], tmp_path / "out")
    assert sorted(item.location for item in items) == sorted(str(root / n) for n in expected)


def test_several_inputs_that_lead_to_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(Path("photos/a.png")), put(Path("photos/sub/b.png"))
    Path("link").symlink_to("photos")
    assert predicted("photos", "link", "photos/sub", "photos/") == [
        "photos/a.png",
        "photos/sub/b.png",
    ]
    assert predicted("link") == ["link/a.png", "link/sub/b.png"]
    assert predicted("photos/sub", "photos") == ["photos/sub/b.png", "photos/a.png"]


def test_patterns_end_at_loops(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(Path("p/a.png")), put(Path("p/q/b.png")), put(Path("c.png"))
    Path("p/one").symlink_to(".")
    Path("p/two").symlink_to("..")
    assert predicted("p/**/*.png") == ["p/a.png", "p/q/b.png", "p/two/c.png"]
    assert predicted("**/*.png") == ["c.png", "p/a.png", "p/q/b.png"]
    assert predicted("p/**") == ["p/a.png", "p/q/b.png", os.path.join("p", "two", "c.png")]


def test_hidden_files_and_the_output_are_no_input(tmp_path):
    put(tmp_path / "a.png"), put(tmp_path / ".b.png"), put(tmp_path / ".cache" / "c.png")
    put(tmp_path / "out" / "heatmaps" / "a.png.png")
    (tmp_path / "copy").symlink_to("out")
    (tmp_path / "ann.png").symlink_to(".cache/c.png")  # as git-annex stores files
    skipped = Skipped()
    walk = FileWalk(tmp_path / "out").files(tmp_path, skipped)
    assert [entry.name for entry in walk] == ["a.png", "ann.png"]
    assert skipped.counts == {"hidden": 2}
    assert len(predicted(tmp_path / "out", out=tmp_path / "out")) == 1  # named outright
    assert len(predicted(tmp_path, out=tmp_path)) == 3


def test_labelled_folders_of_links_into_a_pool(tmp_path):
    """Each class keeps its links; the pool, which names no class, is not used twice."""
    for k in range(6):
        put(tmp_path / "pool" / f"{k}.png", content(seed=k))
        link = tmp_path / ("real" if k % 2 else "fake") / f"{k}.png"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(f"../pool/{k}.png")
    (tmp_path / "real" / "twice.png").symlink_to("1.png")
    (tmp_path / "fake" / "loop").symlink_to("..")
    splits = build_splits(DataConfig(name="folder", root=str(tmp_path), val_fraction=0.2), 0)
    found = [r.location for source in splits.values() for r in source.records]
    assert sorted(Path(p).relative_to(tmp_path).as_posix() for p in found) == [
        *("fake/0.png", "fake/2.png", "fake/4.png", "real/1.png", "real/3.png", "real/5.png")
    ]


# --- every command says the same, and what it leaves out ---

OTHERS = {"LICENSES.csv": b"a,b", "clip.mp4": b"\0\0\0\x20ftypisom", "notes": b"some text"}


@pytest.fixture
def mixed(tmp_path):
    """Four images of each class under names that say little, and other files."""
    for label in ("real", "fake"):
        for kind, name in (("AVIF", "a.avif"), ("JPEG2000", "b.jp2"), ("JPEG", "c.jpe")):
            put(tmp_path / label / f"{label}-{name}", kind=kind)
        put(tmp_path / label / f"{label}-d")
    for name, data in OTHERS.items():
        put(tmp_path / "real" / name, data)
    put(tmp_path / "fake" / "broken.png", b"<html>")
    put(tmp_path / "fake" / "empty.jpg", b"")
    return tmp_path


def test_training_warns_of_what_it_leaves_out(mixed):
    config = DataConfig(name="folder", root=str(mixed), val_fraction=0.25)
    splits, summary = drop_and_summarize(build_splits(config, 0), config)
    assert sum(len(source.records) for source in splits.values()) == 8
    (warning,) = [text for text in summary["warnings"] if "skipped" in text]
    assert warning.startswith(f"{mixed}: 5 files were skipped: 3 text: ")
    for text in ("LICENSES.csv", "notes", "broken.png", "1 video: ", "clip.mp4", "1 empty: "):
        assert text in warning


def test_prediction_finds_the_same_and_names_what_claims_to_be_an_image(mixed):
    skipped = Skipped()
    found = list(iterate_images(resolve_inputs([mixed], ""), skipped))
    images = [item.name for item in found if isinstance(item, ImageInput)]
    assert sorted(images) == sorted(path for _, path in list_images(mixed))
    failures = {Path(f.path).name: f.reason for f in found if isinstance(f, Failure)}
    assert failures == {"broken.png": "not an image: text", "empty.jpg": "not an image: empty"}
    assert skipped.counts == {"text": 2, "video": 1}
    assert skipped.lines()[1] == f"1 video: {mixed / 'real' / 'clip.mp4'}"


def test_report_lists_the_same_without_giving_away_where(mixed):
    skipped = Skipped()
    items = file_items([mixed], mixed / "report", skipped)
    assert len(items) == 10  # two of which are refused when they are read
    assert sum(isinstance(item, Item) for item in items) == 10
    assert skipped.names["video"] == ["real/clip.mp4"]


def test_annotations_and_converters(mixed, tmp_path):
    folder = ImageFolder(mixed)
    assert len(folder.paths) == 8
    assert folder.skipped.counts == {"text": 3, "video": 1, "empty": 1}
    masks = tmp_path / "maps"
    for name in ("real-a", "real-b", "real-d"):
        put(masks / f"{name}.tif", kind="TIFF")
    shutil.rmtree(mixed / "fake")
    skipped = Skipped()
    pairs, failures = find_pairs(mixed / "real", masks, skipped)
    assert [pair.name for pair in pairs] == ["real-a", "real-b", "real-d"]
    assert [Path(f.path).name for f in failures] == ["real-c.jpe"]
    assert skipped.counts == {"text": 2, "video": 1}


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    put(tmp_path / "photos" / "a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    put(tmp_path / "texts" / "a.csv", b"a,b")
    result = resolve_inputs([tmp_path / "texts"], "")
    (failure,) = result.failures
    assert failure.reason == f"no images in this folder; it holds 1 text: {tmp_path}/texts/a.csv"
    found = iterate_images(resolve_inputs([tmp_path / "photos"], ""))
    assert [item.reason for item in found] == [
        "not an image: HEIF image, which this Pillow cannot read"
    ]
    with pytest.raises(ArtifactNetError, match=r"holds no images; it holds 1 text: "):
        ImageFolder(tmp_path / "texts")


def test_many_skipped_files_are_counted_and_three_are_named():
    skipped = Skipped()
    for k in range(1000):
        skipped.add("text", f"{k}.txt")
    skipped.add("empty", "a.jpg")
    assert skipped.lines() == ["1000 text: 0.txt, 1.txt, 2.txt, ...", "1 empty: a.jpg"]
    assert skipped.describe("data") == [
        "data: 1001 files were skipped: 1000 text: 0.txt, 1.txt, 2.txt, ...; 1 empty: a.jpg"
    ]
    assert Skipped().describe("data") == []
