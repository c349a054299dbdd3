"""Folders as people name and nest them: nothing is lost, nothing is taken for something else."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifactnet.config import DataConfig
from artifactnet.data.converters.folder import convert_folder
from artifactnet.data.image_folders import find_images
from artifactnet.data.sources.folder import build_folder_splits
from artifactnet.types import Annotation, ArtifactNetError


def image(root: Path, name: str) -> str:
    """A photograph-like file; its content follows from its name."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = list(name.encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return name


def mask(root: Path, name: str) -> str:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((12, 16), np.uint8)
    pixels[2:5, 3:9] = 255
    Image.fromarray(pixels).save(path)
    return name


def images(root: Path, *folders: str, count: int = 3) -> None:
    for folder in folders:
        for index in range(count):
            image(root, f"{folder}/{index}.png")


def found(root: Path, **options):
    """Relative path -> (label, generator, split, relative path of the mask)."""
    items, warnings = find_images(root, **options)
    return {
        os.path.relpath(item.record.location, root): (
            item.record.label,
            item.record.generator,
            item.split,
            item.mask and os.path.relpath(item.mask, root),
        )
        for item in items
    }, warnings


# --- names of splits ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("training", "validation", "testing"),
        ("Train", "VALID", "Test"),
        ("TRAINING", "dev", "testing"),
        ("train", "Validation", "TEST"),
    ],
)
@pytest.mark.parametrize("above", ["", "sdxl/", "imagenet/images/"])
def test_split_folders_of_any_name(tmp_path, names, above):
    for name in names:
        images(tmp_path, f"{above}{name}/real", f"{above}{name}/fake")
    splits = build_folder_splits(DataConfig(root=str(tmp_path)), 0)
    assert list(splits) == ["train", "val", "test"]
    for name, source in zip(names, splits.values(), strict=True):
        assert len(source.records) == 6
        assert all(f"/{name}/" in record.location for record in source.records)
        maker = above.partition("/")[0] or "fake"
        assert {record.generator for record in source.records} == {"real", maker}


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (("train/real", "train/fake", "holdout/real", "holdout/fake"), "holdout"),
        (("training/real", "training/fake", "eval/real", "eval/fake"), "eval"),
        (("train/real", "train/fake", "tset/real", "tset/fake"), "tset"),
        (("train/real", "train/fake", "test2/a"), "test2"),
        (("train/real", "train/fake", "Test images"), "Test images"),
        (("a/Train/real", "a/Train/fake", "a/validaton/b"), "a/validaton"),
        (("train_set/real", "train_set/fake", "test_set/real", "test_set/fake"), "test_set"),
        (("x/train2017/nature", "x/train2017/ai", "x/val2017/nature", "x/val2017/ai"), "train2017"),
        (("real/a/test", "fake/a/test"), "test"),
    ],
)
def test_folders_that_look_like_splits_are_refused(tmp_path, folders, named):
    images(tmp_path, *folders)
    with pytest.raises(ArtifactNetError) as caught:
        find_images(tmp_path, one_class=True)
    assert named in str(caught.value)
    assert "split" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_name_that_contains_a_split_is_a_generator(tmp_path):
    images(tmp_path, "genimage_val/real", "genimage_val/fake", "flux/real", "flux/fake")
    items, warnings = found(tmp_path)
    assert {value[1] for value in items.values()} == {"real", "genimage_val", "flux"}
    assert {value[2] for value in items.values()} == {None}
    assert warnings == []


# --- names of classes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ("nature", "ai"),
        ("Nature", "AI"),
        ("NATURE", "Ai"),
        ("real", "ai_generated"),
        ("Authentic", "Synthetic"),
        ("Real Images", "AI-generated images"),
        ("natural", "1_fake"),
        ("0_REAL", "generated"),
    ],
)
def test_class_folders_of_public_sets(tmp_path, real, fake):
    for split in ("train", "val"):
        for maker in ("biggan", "adm"):
            images(tmp_path, f"{maker}/{split}/{real}", f"{maker}/{split}/{fake}")
    items, warnings = found(tmp_path)
    assert warnings == []
    assert len(items) == 24
    for name, (label, maker, split, _) in items.items():
        parts = name.split("/")
        assert label == (parts[2] == fake)
        assert maker == (parts[0] if label else "real")
        assert split == parts[1]


def test_a_class_name_above_real_and_fake_is_a_generator(tmp_path):
    images(tmp_path, "nature/0_real", "nature/1_fake", "synthetic/0_real", "synthetic/1_fake")
    items, _ = found(tmp_path)
    for name, (label, maker, *_) in items.items():
        assert label == ("1_fake" in name)
        assert maker == (name.split("/")[0] if label else "real")


@pytest.mark.parametrize(
    "folders", [("real/fake", "fake"), ("ai/nature", "nature"), ("fake/0_real",)]
)
def test_contradicting_class_folders_are_refused(tmp_path, folders):
    images(tmp_path, *folders)
    with pytest.raises(ArtifactNetError, match="real images and in one of fakes"):
        find_images(tmp_path)


# --- folders of one meaning --------------------------------------------------------------------


@pytest.mark.parametrize(
    "folders",
    [
        ("real", "Real", "fake"),
        ("real", "0_real", "fake"),
        ("REAL", "fake", "Fake", "1_fake"),
        ("nature", "Natural", "ai", "AI"),
        ("train/real", "training/real", "train/fake", "Training/fake"),
        ("train/real", "train/fake", "val/real", "val/fake", "valid/real", "dev/fake"),
        ("real", "fake", "sdxl/1_fake"),
    ],
)
def test_folders_of_one_meaning_are_merged(tmp_path, folders):
    images(tmp_path, *folders)
    items, warnings = found(tmp_path)
    assert len(items) == 3 * len(folders)
    assert {os.path.dirname(name) for name in items} == set(folders)
    merged = folders != ("real", "fake", "sdxl/1_fake")
    assert any("merged" in text for text in warnings) == merged


@pytest.mark.parametrize(
    "spelled", [("SDXL", "sdxl"), ("Stable-Diffusion 2", "stable_diffusion_2")]
)
@pytest.mark.parametrize("layout", ["fake/{}", "{}/1_fake", "train/fake/{}/images"])
def test_generators_that_differ_in_spelling_alone_are_one(tmp_path, spelled, layout):
    real = "train/real" if layout.startswith("train") else "real"
    images(tmp_path, real, *(layout.format(name) for name in spelled))
    items, warnings = found(tmp_path)
    assert {value[1] for value in items.values()} == {"real", spelled[0]}
    assert any(f"{spelled[0]} and {spelled[1]}" in text for text in warnings)
    splits = build_folder_splits(DataConfig(root=str(tmp_path), generators=[spelled[0]]), 0)
    assert sum(len(source.records) for source in splits.values()) == 9


@pytest.mark.parametrize("folders", [("real", "nature", "fake"), ("real", "fake", "AI")])
def test_a_second_name_that_may_mean_something_else_is_refused(tmp_path, folders):
    images(tmp_path, *folders)
    with pytest.raises(ArtifactNetError, match=f"{'AI' if 'AI' in folders else 'nature'} and"):
        find_images(tmp_path)


def test_masks_of_merged_folders_are_kept_and_never_doubled(tmp_path):
    images(tmp_path, "real", "fake")
    kept = {
        mask(tmp_path, "masks/0.png"),
        mask(tmp_path, "Masks/1.png"),
        mask(tmp_path, "GT/2.png"),
    }
    items, warnings = found(tmp_path)
    assert {value[3] for value in items.values() if value[0]} == kept
    assert any("GT/ and Masks/ and masks/" in text for text in warnings)
    mask(tmp_path, "gt/2.png")
    with pytest.raises(ArtifactNetError, match=r"fake/2\.png: has two masks"):
        find_images(tmp_path)


def test_images_outside_of_class_folders_are_counted(tmp_path):
    images(tmp_path, "real", "fake", "Fkae")
    image(tmp_path, "preview.png")
    items, (warning,) = found(tmp_path)
    assert len(items) == 6
    assert "4 images lie in no class folder" in warning
    assert "Fkae" in warning or "preview.png" in warning


# --- masks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["masks", "Mask", "GT", "gt", "groundtruth", "Ground Truth"])
@pytest.mark.parametrize(
    ("fakes", "where"),
    [
        ("fake", "fake/{}"),
        ("fake/images", "fake/{}"),
        ("fake", "{}"),
        ("fake", "{}/fake"),
        ("fake/sdxl", "fake/sdxl/{}"),
        ("fake/sdxl", "fake/{}/sdxl"),
        ("fake/sdxl", "{}/sdxl"),
        ("fake/sdxl", "{}"),
        ("1_fake/sdxl/imgs", "1_fake/sdxl/{}"),
        ("train/ai", "train/ai/{}"),
        ("train/ai", "{}/train/ai"),
        ("train/ai", "{}/Training"),
        ("train/ai", "{}"),
        ("images/fake", "{}/fake"),
        ("images/train/fake", "{}/train/fake"),
        ("sdxl/1_fake", "sdxl/1_fake/{}"),
        ("sdxl/1_fake", "{}/sdxl"),
    ],
)
def test_masks_are_found_wherever_people_put_them(tmp_path, name, fakes, where):
    above = fakes.rpartition("/")[0] if fakes.count("/") > 1 else fakes.split("/")[0]
    real = {"fake": "real", "1_fake": "0_real", "train": "train/nature"}.get(above, "")
    real = real or {"images": "images/real", "images/train": "images/train/real"}.get(above, "")
    images(tmp_path, fakes, real or "0_real")
    for index in range(2):
        mask(tmp_path, f"{where.format(name)}/{index}.png")
    items, warnings = found(tmp_path)
    assert warnings == []
    assert len(items) == 6
    for path, (label, *_, used) in items.items():
        stem = Path(path).name
        expected = f"{where.format(name)}/{stem}" if label and stem != "2.png" else None
        assert used == expected


def test_masks_lead_to_annotated_fakes_only(tmp_path):
    images(tmp_path, "real", "fake")
    mask(tmp_path, "real/masks/0.png")
    mask(tmp_path, "fake/fake_masks/1.png")
    mask(tmp_path, "masks/2_mask.png")
    items, warnings = find_images(tmp_path)
    records = [item.record for item in items]
    states = {os.path.relpath(one.location, tmp_path): one.annotation for one in records}
    assert states.pop("fake/1.png") is states.pop("fake/2.png") is Annotation.MASK
    assert states.pop("fake/0.png") is Annotation.NONE
    assert set(states.values()) == {Annotation.CLEAN}
    (warning,) = warnings
    assert "1 masks belong to real images" in warning
    assert "real/masks/0.png" in warning


def test_a_mask_of_two_images_is_refused(tmp_path):
    images(tmp_path, "real", "fake/sdxl", "fake/flux")
    mask(tmp_path, "masks/1.png")
    with pytest.raises(ArtifactNetError, match=r"masks/1\.png: this mask fits .*flux.*sdxl"):
        find_images(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "fake/annotated/1.png",
        "fake/1_mask.png",
        "fake/labels/1.bmp",
        "real/x/1.png",
        "fake/m/1.jpg",
    ],
)
def test_masks_among_the_images_are_refused(tmp_path, name):
    images(tmp_path, "real", "fake")
    mask(tmp_path, name)
    with pytest.raises(ArtifactNetError) as caught:
        find_images(tmp_path)
    assert name in str(caught.value)
    assert "masks/" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_converter_reads_the_same(tmp_path):
    images(tmp_path / "in", "Training/Real", "training/ai", "valid/nature", "valid/AI")
    with pytest.raises(ArtifactNetError):
        find_images(tmp_path / "in" / "Training")
    mask(tmp_path / "in", "training/ai/gt/1.png")
    convert_folder(tmp_path / "in", tmp_path / "out")
    lines = (tmp_path / "out" / "folder.jsonl").read_text().splitlines()
    assert len(lines) == 12
    assert sum('"split": "val"' in line for line in lines) == 6
    assert sum('"annotation": "mask"' in line for line in lines) == 1
