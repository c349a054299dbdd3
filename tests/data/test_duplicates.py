"""One picture under two labels is an error by content; nearly the same picture is a warning."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from artifactnet.config import DataConfig
from artifactnet.data import duplicates, near_duplicates
from artifactnet.data.checks import summarize_data
from artifactnet.data.datamodule import build_splits, drop_and_summarize
from artifactnet.data.near_duplicates import MAX_BITS, find_near_duplicates, similar_hashes
from artifactnet.data.splits import Subset
from artifactnet.types import Annotation, ArtifactNetError, Record


def picture(seed: int, size=(96, 80)) -> Image.Image:
    """Blobs: low frequencies, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def summary(root, name="folder", check="full", on_error="raise", **options):
    config = DataConfig(
        name=name, root=str(root), check=check, on_error=on_error, val_fraction=0.2, **options
    )
    return drop_and_summarize(build_splits(config, 0), config)[1]


def filled(root, count=6, split=""):
    """``count`` unrelated pictures per class; as many more seeds are free below 100."""
    base = 200 * (1 + ["", "train", "test"].index(split))
    for k in range(count):
        save(picture(base + k), root / split / "real" / f"{split}r{k}.png")
        save(picture(base + 100 + k), root / split / "fake" / f"{split}f{k}.png")
    return root


# --- the same content under two labels ---


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("real/r0.png", "fake/another name.png"),
        ("real/r1.png", "fake/sdxl/r1.png"),  # of one stem, too
        ("fake/f2.png", "real/no suffix"),
        ("real/r3.png", "real/../fake/x.jpg"),
    ],
)
def test_a_file_under_two_labels_is_an_error_that_names_both(tmp_path, first, second, on_error):
    root = filled(tmp_path)
    path = root / second
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((root / first).read_bytes())
    with pytest.raises(ArtifactNetError, match=r"^1 image has two labels, real and fake") as error:
        summary(root, on_error=on_error)
    assert str(root / first) in str(error.value)
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)


def test_across_splits_and_through_a_link(tmp_path):
    root = filled(filled(tmp_path, split="train"), split="test")
    (root / "test" / "fake" / "link.png").symlink_to(root / "train" / "real" / "trainr0.png")
    with pytest.raises(ArtifactNetError, match=r"trainr0\.png \(real, .*link\.png \(fake, test"):
        summary(root)


def test_many_conflicts_are_counted_and_ten_are_named(tmp_path):
    root = filled(tmp_path, 14)
    for k in range(12):
        (root / "fake" / f"copy{k}.png").write_bytes((root / "real" / f"r{k}.png").read_bytes())
    with pytest.raises(ArtifactNetError, match="^12 images have two labels") as error:
        summary(root)
    assert str(error.value).count(" = ") == 10


def test_manifest(tmp_path):
    filled(tmp_path)
    copy = tmp_path / "fake" / "copy.png"
    copy.write_bytes((tmp_path / "real" / "r0.png").read_bytes())
    lines = [
        {
            "image": str(path.relative_to(tmp_path)),
            "uid": path.stem,
            "label": int(path.parent.name == "fake"),
            "annotation": "clean" if path.parent.name == "real" else "none",
        }
        for path in sorted(tmp_path.glob("*/*.png"))
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ArtifactNetError, match=r"r0\.png \(real, .* = .*copy\.png \(fake"):
        summary(tmp_path / "m.jsonl", "manifest")


def test_row_of_a_shard_and_photograph(tmp_path):
    """The content of a parquet row is a file elsewhere."""
    rows = []
    for k in range(4):
        path = save(picture(k), tmp_path / "real" / f"u{k}.png")
        content = io.BytesIO()
        picture(50 + k).save(content, "PNG")
        data = path.read_bytes() if k == 2 else content.getvalue()
        rows.append(
            {
                "image": {"bytes": data, "path": None},
                "generator": "sdxl",
                "uid": f"u{k}",
                "labels": [],
                "width": 96,
                "height": 80,
            }
        )
    (tmp_path / "data").mkdir()
    shard = tmp_path / "data" / "labeled_train-00000-of-00001.parquet"
    point = pa.struct([("label", pa.string()), ("points", pa.list_(pa.list_(pa.float64())))])
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    kinds = [("generator", pa.string()), ("uid", pa.string()), ("labels", pa.list_(point))]
    sides = [("width", pa.int64()), ("height", pa.int64())]
    schema = pa.schema([("image", image), *kinds, *sides])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), shard)
    with pytest.raises(ArtifactNetError, match=r"two labels.*parquet#2 \(fake.*") as error:
        summary(tmp_path, "xaigd")
    assert str(tmp_path / "real" / "u2.png") in str(error.value)


def test_counts_alone_open_no_file(tmp_path, monkeypatch):
    splits = build_splits(DataConfig(name="folder", root=str(filled(tmp_path))), 0)
    monkeypatch.setattr(duplicates, "open", None, raising=False)
    assert "near_duplicates" not in summarize_data(splits, "counts")


# --- nearly the same picture ---

CHANGES = {
    "recompressed": (lambda image: image, {"format": "JPEG", "quality": 50}),
    "half": (lambda image: image.resize((48, 40)), {"format": "PNG"}),
    "double as WebP": (lambda image: image.resize((192, 160)), {"format": "WEBP", "quality": 80}),
    "brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.1), {"format": "PNG"}),
    "AVIF": (lambda image: image, {"format": "AVIF", "quality": 60}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_in_the_other_class_is_a_warning(tmp_path, change):
    alter, options = CHANGES[change]
    root = filled(tmp_path)
    copy = save(alter(Image.open(root / "real" / "r3.png")), root / "fake" / "copy", **options)
    result = summary(root)
    (warning,) = [text for text in result["warnings"] if "nearly the same" in text]
    assert warning.startswith("1 pair of images looks")
    assert str(root / "real" / "r3.png") in warning
    assert str(copy) in warning
    assert result["near_duplicates"]["pairs"] == 1


def test_across_splits_of_one_label(tmp_path):
    root = filled(filled(tmp_path, split="train"), split="test")
    image = Image.open(root / "train" / "fake" / "trainf1.png")
    save(image, root / "test" / "fake" / "again.jpg", quality=70)
    (warning,) = [text for text in summary(root)["warnings"] if "nearly the same" in text]
    assert "again.jpg (fake, test)" in warning


def test_unrelated_pictures_and_copies_in_one_class_are_no_warning(tmp_path):
    root = filled(filled(tmp_path, 20, split="train"), 20, split="test")
    for k, shade in enumerate((0, 128, 255)):  # empty pictures are all alike
        save(Image.new("RGB", (64, 64), (shade,) * 3), root / "train" / "real" / f"empty{k}.png")
        save(Image.new("RGB", (32, 64), (shade,) * 3), root / "test" / "fake" / f"blank{k}.png")
    for k in range(4):
        image = Image.open(root / "test" / "fake" / f"testf{k}.png")
        save(image, root / "test" / "fake" / f"copy{k}.jpg")
    assert [text for text in summary(root)["warnings"] if "nearly" in text] == []


def edited(root, stem, masked):
    """A photograph, and in fake/ the same with a changed corner."""
    image = picture(sum(map(ord, stem)))
    save(image, root / "real" / f"{stem}.png")
    image.paste((200, 30, 30), (0, 0, 12, 12))
    name = f"{stem}.png" if masked == "same stem" else f"{stem}_edit.png"
    save(image, root / "fake" / name)
    if masked == "mask":
        mask = Image.new("L", image.size)
        mask.paste(255, (0, 0, 12, 12))
        save(mask, root / "masks" / name)


@pytest.mark.parametrize(("masked", "count"), [("same stem", 0), ("mask", 0), ("neither", 3)])
def test_known_twins_are_no_warning(tmp_path, masked, count):
    for split in ("train", "test"):
        filled(tmp_path, split=split)
    for stem in ("a", "bc", "def"):
        edited(tmp_path / "train", stem, masked)
    save(picture(1), tmp_path / "val" / "real" / "v.png")
    save(picture(2), tmp_path / "val" / "fake" / "w.png")
    assert summary(tmp_path)["near_duplicates"]["pairs"] == count


def test_an_edit_with_a_mask_in_another_split_than_its_photograph_is_one(tmp_path):
    class Made:
        def __init__(self, records, images):
            self.records, self.images = records, images

        def encoded(self, index):
            content = io.BytesIO()
            self.images[index].save(content, "PNG")
            return content.getvalue()

    image = picture(7)
    changed = image.copy()
    changed.paste((0, 0, 0), (0, 0, 9, 9))
    real = Record("a", 0, "real", Annotation.CLEAN, "photo")
    fake = Record("b", 1, "edit", Annotation.MASK, "edit")
    together = {"train": Made([real, fake], [image, changed])}
    assert find_near_duplicates(together).pairs == []
    apart = {"train": Made([real], [image]), "test": Made([fake], [changed])}
    assert find_near_duplicates(apart).pairs == [(("train", 0), ("test", 0))]


def test_the_first_ten_pairs_are_named_and_the_bound_is_told(tmp_path, monkeypatch):
    root = filled(tmp_path, 20)
    for k in range(15):
        save(Image.open(root / "real" / f"r{k}.png"), root / "fake" / f"copy{k}.jpg")
    (warning,) = [text for text in summary(root)["warnings"] if "nearly the same" in text]
    assert warning.startswith("15 pairs")
    assert warning.count(" ~ ") == 10
    monkeypatch.setattr(near_duplicates, "MAX_COMPARED", 30)
    result = summary(root)
    assert result["near_duplicates"]["compared"] == 30
    assert any(text.startswith("30 of 55 images were compared") for text in result["warnings"])


def test_embedded_data_is_not_decoded_again(monkeypatch):
    def refuse(*args):
        raise AssertionError("decoded")

    splits = build_splits(DataConfig(name="demo", demo_train=2, demo_val=1, demo_test=1), 0)
    splits["val"] = Subset(splits["val"], [1])  # as evaluations and limits make them
    monkeypatch.setattr(near_duplicates, "gray_thumbnail", refuse)
    result = summarize_data(splits, "full")
    assert result["near_duplicates"] == {"pairs": 0, "compared": 0}
    assert not any("nearly" in text for text in result["warnings"])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 7)), max_size=8),
)
def test_every_pair_of_up_to_seven_bits_is_found(seed, copies):
    rng = np.random.default_rng(seed)
    hashes = list(rng.integers(0, 256, (20, 16), dtype=np.uint8))
    for source, bits in copies:
        flat = np.unpackbits(hashes[source])
        flat[rng.choice(128, bits, replace=False)] ^= 1
        hashes.append(np.packbits(flat))
    groups = np.arange(len(hashes)) % 2
    distance = {
        (a, b): int(np.unpackbits(hashes[a] ^ hashes[b]).sum())
        for b in range(len(hashes))
        for a in range(b)
        if groups[a] != groups[b]
    }
    found = set(similar_hashes(np.stack(hashes), groups))
    assert {pair for pair, bits in distance.items() if bits <= 7} <= found
    assert found <= {pair for pair, bits in distance.items() if bits <= MAX_BITS}
