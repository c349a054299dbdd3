"""Masks recognized by their pixels, against images that are none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from artifactnet.data.mask_pictures import find_mask_pictures, has_two_levels

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (96, 128, 3), dtype=np.uint8)
BLOB = np.zeros((96, 128), bool)
BLOB[20:60, 30:80] = True
NOISE = RNG.integers(0, 2, (96, 128)).astype(bool)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return str(path)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "gif", "pgm"])
@pytest.mark.parametrize("levels", [(0, 255), (0, 1), (255, 0), (7, 200)])
@pytest.mark.parametrize("shape", [BLOB, NOISE], ids=["blob", "noise"])
def test_two_levels_of_any_format(tmp_path, suffix, levels, shape):
    pixels = np.where(shape, *levels).astype(np.uint8)
    assert has_two_levels(save(tmp_path / f"m.{suffix}", pixels))


def test_coloured_bilevel_and_compressed_masks(tmp_path):
    colours = np.where(BLOB[..., None], (255, 0, 0), (0, 255, 0)).astype(np.uint8)
    gray = np.where(BLOB, 255, 0).astype(np.uint8)
    assert has_two_levels(save(tmp_path / "a.png", colours))
    assert has_two_levels(save(tmp_path / "b.png", BLOB))
    assert has_two_levels(save(tmp_path / "c.jpg", gray, quality=90))
    assert has_two_levels(save(tmp_path / "d.webp", gray, quality=80))
    assert has_two_levels(save(tmp_path / "e.webp", gray, lossless=True))
    soft = Image.fromarray(gray).resize((384, 288), Image.Resampling.BILINEAR)
    assert has_two_levels(save(tmp_path / "f.png", np.asarray(soft)))


def test_images_are_not_masks(tmp_path):
    smooth = np.linspace(0, 255, 128, dtype=np.uint8)[None].repeat(96, 0)
    for name, pixels in {
        "photo.png": PHOTO,
        "photo.jpg": PHOTO,
        "gray.png": PHOTO[..., 0],
        "smooth.png": smooth,
        "smooth.jpg": smooth,
        "three.png": np.where(BLOB, 255, np.arange(128) // 100 * 128).astype(np.uint8),
        "black.png": np.zeros((96, 128), np.uint8),
    }.items():
        assert not has_two_levels(save(tmp_path / name, pixels)), name
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    assert not has_two_levels(str(tmp_path / "broken.png"))
    assert not has_two_levels(str(tmp_path / "gone.png"))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans()), unique=True))
def test_only_masks_with_an_image_of_their_stem_count(tmp_path_factory, files):
    root = tmp_path_factory.mktemp("files")
    paths, masks = [], set()
    for folder, stem, is_mask in files:
        path = root / str(folder) / f"{stem}.{'bmp' if is_mask else 'png'}"
        path.parent.mkdir(exist_ok=True)
        paths.append(save(path, np.where(BLOB, 255, 0).astype(np.uint8) if is_mask else PHOTO))
        masks |= {paths[-1]} if is_mask else set()
    pictured = {stem for _, stem, is_mask in files if not is_mask}
    expected = [
        p for p, (_, stem, _) in zip(paths, files, strict=True) if p in masks and stem in pictured
    ]
    pairs = find_mask_pictures(paths)
    assert [path for path, _ in pairs] == expected
    for path, mate in pairs:
        assert mate not in masks
        assert mate.rpartition("/")[2].split(".")[0] == path.rpartition("/")[2].split(".")[0]


def test_stems_with_a_mask_ending(tmp_path):
    picture = save(tmp_path / "7.png", PHOTO)
    masks = [save(tmp_path / f"{name}.png", BLOB) for name in ("7_mask", "mask_7", "7-GT", "7_seg")]
    other = save(tmp_path / "8_mask.png", BLOB)
    assert find_mask_pictures([picture, *masks, other]) == [(path, picture) for path in masks]
