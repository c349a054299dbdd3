"""Folders of images: every layout, the splits drawn from them, masks, and bad input."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifactnet.config import DataConfig
from artifactnet.data.checks import summarize_data
from artifactnet.data.sources import folder
from artifactnet.types import Annotation, ArtifactNetError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


def image(path: Path, value: int | None = None, size: tuple[int, int] = (6, 8)) -> Path:
    """A small PNG; its content follows from its path, so that no two are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if value is None:
        pixels = np.random.default_rng(list(str(path).encode())).integers(0, 256, (*size, 3))
    else:
        pixels = np.full(size, value)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def pairs(root: Path, real: str = "real", fake: str = "fake", count: int = 3) -> None:
    for index in range(count):
        image(root / real / f"{index}.png")
        image(root / fake / f"{index}.png")


def build(root: Path, seed: int = 0, **options):
    return folder.build_folder_splits(DataConfig(name="folder", root=str(root), **options), seed)


def locations(source) -> set[str]:
    return {record.location for record in source.records}


def everything(splits) -> list:
    return [record for source in splits.values() for record in source.records]


@pytest.mark.parametrize(
    ("real", "fake"), [("real", "fake"), ("0_real", "1_fake"), ("REAL", "FAKE")]
)
def test_class_folder_names(tmp_path, real, fake):
    pairs(tmp_path, real, fake)
    records = everything(build(tmp_path))
    for record in records:
        assert record.label == int(Path(record.location).parent.name == fake)
        assert record.generator == ("fake" if record.label else "real")
        assert record.annotation is (Annotation.NONE if record.label else Annotation.CLEAN)
        assert record.path == record.location
        assert record.uid == Path(record.location).stem
    assert len(records) == 6


def test_nested_generator_folders(tmp_path):
    for index in range(4):
        image(tmp_path / "real" / "coco" / f"{index}.png")
        image(tmp_path / "fake" / "sdxl" / "a" / f"{index}.png")
        image(tmp_path / "fake" / "flux" / f"{index}.png")
    splits = build(tmp_path)
    for record in everything(splits):
        parts = Path(record.location).relative_to(tmp_path).parts
        assert record.generator == (parts[1] if parts[0] == "fake" else "real")
    uids = [{record.uid for record in source.records} for source in splits.values()]
    assert sum(len(part) for part in uids) == 4  # the three images of a stem share a split


@pytest.mark.parametrize("order", ["{split}/{maker}", "{maker}/{split}"])
def test_generators_above_the_class_folders(tmp_path, order):
    for maker in ("progan", "biggan"):
        for split in ("train", "test"):
            pairs(tmp_path / order.format(split=split, maker=maker), "0_real", "1_fake")
    splits = build(tmp_path)
    assert set(splits) == {"train", "val", "test"}
    assert {record.generator for record in splits["test"].records} == {"real", "progan", "biggan"}
    assert len(splits["test"].records) == 12


def test_validation_is_drawn_from_training_by_uid(tmp_path):
    def uids(seed):
        splits = build(tmp_path, seed, val_fraction=0.25)
        return {name: {record.uid for record in source.records} for name, source in splits.items()}

    pairs(tmp_path / "train", count=20)
    for kind in ("real", "fake"):
        image(tmp_path / "test" / kind / "20.png")
    drawn = uids(0)
    assert (len(drawn["val"]), len(drawn["train"]), drawn["test"]) == (5, 15, {"20"})
    assert not drawn["val"] & drawn["train"]
    assert uids(0) == drawn
    assert uids(1)["val"] != drawn["val"]


def test_unpaired_classes_are_both_in_every_split(tmp_path):
    for index in range(12):
        image(tmp_path / "real" / f"photo{index}.png")
        image(tmp_path / "fake" / f"made{index}.png")
    for seed in range(5):
        for source in build(tmp_path, seed=seed).values():
            assert {record.label for record in source.records} == {0, 1}


def test_identical_files_stay_together(tmp_path):
    for index in range(30):
        image(tmp_path / "real" / f"r{index}.png")
        image(tmp_path / "fake" / f"f{index}.png", value=index // 10)
    for seed in range(4):
        for source in build(tmp_path, seed=seed, val_fraction=0.3).values():
            shown = [r.uid for r in source.records if r.label]
            tens = {int(uid[1:]) // 10 for uid in shown}
            assert len(shown) == 10 * len(tens)


def test_split_folders_and_stems_that_repeat(tmp_path):
    pairs(tmp_path / "train", count=2)
    pairs(tmp_path / "val", count=1)
    pairs(tmp_path / "test", count=2)
    image(tmp_path / "test" / "real" / "own.png")
    splits = build(tmp_path)
    assert list(splits) == ["train", "val", "test"]
    for name, source in splits.items():
        assert all(Path(place).parts[-3] == name for place in locations(source))
    assert any("2 file stems" in text and "'0'" in text for text in splits["test"].warnings)
    uids = [{record.uid for record in source.records} for source in splits.values()]
    assert uids == [{"train/0", "train/1"}, {"val/0"}, {"test/0", "test/1", "own"}]


def test_generators_and_limit(tmp_path):
    for index in range(6):
        image(tmp_path / "real" / f"{index}.png")
        image(tmp_path / "fake" / "a" / f"{index}.png")
        image(tmp_path / "fake" / "b" / f"{index}.png")
    records = everything(build(tmp_path, generators=["b"]))
    assert sorted({record.generator for record in records}) == ["b", "real"]
    assert len(records) == 12
    with pytest.raises(ArtifactNetError, match=r"data\.generators: 'c' is not in .*it has a, b"):
        build(tmp_path, generators=["c"])
    for source in build(tmp_path, generators=["b"], limit=1).values():
        assert (len(source.records), len({record.uid for record in source.records})) == (2, 1)


def test_masks(tmp_path):
    for index in range(3):
        image(tmp_path / "train" / "real" / f"{index}.png")
        image(tmp_path / "train" / "fake" / "sdxl" / f"{index}.jpg")
    where = tmp_path / "train" / "masks" / "sdxl"
    where.mkdir(parents=True)
    painted = np.zeros((6, 8), dtype=np.uint8)
    painted[2:4, 3:5] = 255
    Image.fromarray(painted).save(where / "1.png")
    image(where / "9.png", 255)
    source = build(tmp_path, val_fraction=0.0)["train"]
    (text,) = source.warnings
    assert text.startswith("1 masks have no fake image")
    assert text.endswith("9.png")
    for index, record in enumerate(source.records):
        sample = source.load(index)
        assert sample.image.shape == (6, 8, 3)
        assert sample.record is record
        if record.label == 1 and record.uid == "1":
            assert record.annotation is Annotation.MASK
            np.testing.assert_array_equal(sample.mask, painted // 255)
        else:
            assert sample.mask is None
            assert record.annotation is (Annotation.NONE if record.label else Annotation.CLEAN)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "no images found"),
        (("pictures/a.png",), "no images found"),
        (("real/a.png",), "holds no fake images"),
        (("fake/a.png",), "holds no real images"),
        (("train/real/a.png", "train/fake/a.png", "test/fake/b.png"), "test: holds no real"),
        (("real/a.png", "fake/a.png", "train/real/b.png"), "class folders and split folders"),
        (("a/real/a.png", "a/fake/a.png", "train/real/b.png", "train/fake/b.png"), "some do not"),
        (("real/train/a.png", "fake/train/a.png"), "split folders belong above"),
        (("train/test/real/a.png", "train/test/fake/a.png"), "more than one split folder"),
    ],
)
def test_bad_layouts(tmp_path, files, message):
    for name in files:
        image(tmp_path / name)
    with pytest.raises(ArtifactNetError, match=message) as caught:
        build(tmp_path)
    assert "known layouts" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_keys_and_files(tmp_path):
    with pytest.raises(ArtifactNetError, match=r"nowhere: no such folder.*known layouts"):
        build(tmp_path / "nowhere")
    with pytest.raises(ArtifactNetError, match=r"data\.root is not set"):
        folder.build_folder_splits(DataConfig(name="folder"), 0)
    pairs(tmp_path, count=1)
    for name in ("notes.txt", ".hidden.png", "Thumbs.db"):  # ignored
        (tmp_path / "real" / name).write_bytes(b"x")
    with pytest.raises(ArtifactNetError, match=r"data\.val_fraction=0\.5"):
        build(tmp_path, val_fraction=0.5)
    image(tmp_path / "masks" / "0.png", 255, (8, 6))
    source = build(tmp_path, val_fraction=0.0)["train"]
    index = [record.label for record in source.records].index(1)
    with pytest.raises(ArtifactNetError, match=r"fake/0\.png: its mask .*masks/0\.png is 6x8"):
        source.load(index)
    path = tmp_path / "fake" / "0.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ArtifactNetError, match=r"fake/0\.png: "):
        source.load(index)


def test_unlistable_folder(tmp_path, monkeypatch):
    def walk(top, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", str(top)))

    monkeypatch.setattr("os.walk", walk)
    with pytest.raises(ArtifactNetError, match=r"cannot be listed \(Permission denied\)"):
        build(tmp_path)


@pytest.mark.skipif(not (SHARED / "migan_edits").is_dir(), reason="needs shared/data/migan_edits")
def test_real_edits():
    splits = build(SHARED / "migan_edits")
    counts = {name: len(source.records) for name, source in splits.items()}
    assert counts == {"train": 1254, "val": 126, "test": 260}
    summary = summarize_data(splits, "full")
    assert summary["warnings"] == []
    assert summary["splits"]["val"]["annotation"] == {"none": 0, "clean": 63, "mask": 63}
    source = splits["test"]
    index = next(k for k, record in enumerate(source.records) if record.label)
    sample = source.load(index)
    assert source.records[index].annotation is Annotation.MASK
    assert 0 < sample.mask.mean() < 0.5
    assert sample.mask.shape == sample.image.shape[:2]
