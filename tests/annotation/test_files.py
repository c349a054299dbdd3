"""Matching masks to images."""

from pathlib import Path

import pytest
from annotated_files import picture

from artifactnet.annotation.files import find_pairs
from artifactnet.types import ArtifactNetError


def make_folders(root: Path, images: list[str], masks: list[str]) -> tuple[Path, Path]:
    for folder, names in (("images", images), ("masks", masks)):
        for name in names:
            picture(root / folder / name)
    return root / "images", root / "masks"


def matched(root: Path, images: list[str], masks: list[str]) -> tuple[dict, dict]:
    """Image -> mask, and image -> reason, by names below the folders."""
    image_folder, mask_folder = make_folders(root, images, masks)
    pairs, failures = find_pairs(image_folder, mask_folder)
    for pair in pairs:
        assert Path(pair.image) == image_folder / pair.relative
    return (
        {pair.relative: Path(pair.mask).relative_to(mask_folder).as_posix() for pair in pairs},
        {Path(f.path).relative_to(image_folder).as_posix(): f.reason for f in failures},
    )


def test_same_place_comes_before_same_stem(tmp_path):
    found, failed = matched(
        tmp_path,
        ["a/7.jpg", "b/7.jpg", "b/8.png", "c/9.webp"],
        ["a/7.png", "b/7.png", "deep/er/8.png", "9.png"],
    )
    assert failed == {}
    assert found == {
        "a/7.jpg": "a/7.png",
        "b/7.jpg": "b/7.png",
        "b/8.png": "deep/er/8.png",
        "c/9.webp": "9.png",
    }


def test_ambiguous_masks_are_not_guessed(tmp_path):
    found, failed = matched(
        tmp_path,
        ["1.jpg", "a/2.jpg", "b/2.jpg", "3.jpg", "3.png", "4.jpg", "x/5.jpg", "6.jpg"],
        ["2.png", "3.png", "4.png", "4.bmp", "p/5.png", "q/5.png", "6.png"],
    )
    assert found == {"6.jpg": "6.png"}
    assert failed.keys() == {"1.jpg", "a/2.jpg", "b/2.jpg", "3.jpg", "3.png", "4.jpg", "x/5.jpg"}
    assert "no mask of this name" in failed["1.jpg"]
    assert "b/2.jpg as well" in failed["a/2.jpg"]
    assert "3.png as well" in failed["3.jpg"]
    assert "could be its mask" in failed["4.jpg"]
    assert "could be its mask" in failed["x/5.jpg"]


def test_one_folder_inside_the_other(tmp_path):
    for name in ("1.png", "2.png", "masks/1.png"):
        picture(tmp_path / "set" / name)
    pairs, failures = find_pairs(tmp_path / "set", tmp_path / "set" / "masks")
    assert [pair.relative for pair in pairs] == ["1.png"]
    assert [Path(f.path).name for f in failures] == ["2.png"]
    pairs, _ = find_pairs(tmp_path / "set" / "masks", tmp_path / "set")
    assert [Path(pair.mask) for pair in pairs] == [tmp_path / "set" / "1.png"]


def test_names_are_unique(tmp_path):
    images, masks = make_folders(tmp_path, ["a/1.jpg", "a/1.x.jpg", "1.jpg"], ["a/1.png", "1.png"])
    picture(masks / "a" / "1.x.png")
    pairs, failures = find_pairs(images, masks)
    assert failures == []
    assert [pair.name for pair in pairs] == ["1", "a/1", "a/1.x"]


@pytest.mark.parametrize("which", ["images", "masks"])
def test_missing_and_empty_folders(tmp_path, which):
    images, masks = make_folders(tmp_path, ["1.png"], ["1.png"])
    with pytest.raises(ArtifactNetError, match="images"):
        find_pairs(images, images / ".." / "images")
    broken = tmp_path / which
    (broken / "1.png").unlink()
    with pytest.raises(ArtifactNetError, match=str(broken)):
        find_pairs(images, masks)
    broken.rmdir()
    with pytest.raises(ArtifactNetError, match=str(broken)):
        find_pairs(images, masks)
