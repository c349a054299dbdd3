"""Damage of pixels and of their truth, against loops, worked examples and other libraries."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from artifactnet.data import damage
from artifactnet.data.damage import (
    crop_window,
    damage_boxes,
    damage_mask,
    damage_pixels,
    parse_level,
)
from artifactnet.data.geometry import Box
from artifactnet.types import ArtifactNetError

SIZE = (384, 512)  # height, width
NAMES = ("original", "jpeg80", "jpeg30", "webp50", "crop", "half", "blur1")


@pytest.mark.parametrize(("uid", "corner"), [("a", (84, 27)), ("b", (45, 47))])
def test_the_worked_windows(uid, corner):
    assert crop_window(SIZE, 0, uid) == Box(corner[1], corner[0], 307, 410)


def test_the_worked_boxes():
    boxes = [(100, 50, 300, 200), (0, 0, 84, 20), (450, 300, 512, 384)]
    found = damage_boxes(boxes, SIZE, parse_level("crop"), 0, "a")
    assert found == [(16, 23, 216, 173), (366, 273, 410, 307)]


@pytest.mark.parametrize("size", [(511, 40), (512, 41), (1, 7), (2, 3)])
def test_half_rounds_up_and_moves_boxes_by_the_real_factor(size):
    level = parse_level("half")
    pixels = np.zeros((*size, 3), np.uint8)
    height, width = damage_pixels(pixels, level, 0, "a").shape[:2]
    assert (height, width) == tuple(max(1, int(side / 2 + 0.5)) for side in size)
    whole = (0.0, 0.0, float(size[1]), float(size[0]))
    assert damage_boxes([whole], size, level, 0, "a") == [(0, 0, width, height)]
    assert damage_mask(np.ones(size, np.uint8), level, 0, "a").shape == (height, width)


def test_half_is_pillows_bicubic(noise):
    pixels = noise(37, 52)
    expected = Image.fromarray(pixels).resize((26, 19), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(
        damage_pixels(pixels, parse_level("half"), 0, "a"), np.asarray(expected)
    )


def test_half_takes_the_nearest_pixel_of_a_mask(noise):
    mask = noise(7, 10)[..., 0]
    found = damage_mask(mask, parse_level("half"), 0, "a")
    assert found.shape == (4, 5)
    for row in range(4):
        for column in range(5):
            old = int((row + 0.5) * 7 / 4), int((column + 0.5) * 10 / 5)
            assert found[row, column] == mask[old]


@pytest.mark.parametrize(
    ("name", "form", "options"),
    [
        ("jpeg30", "JPEG", {"quality": 30, "subsampling": 2}),  # 2 is 4:2:0
        ("jpeg80", "JPEG", {"quality": 80, "subsampling": 2}),
        ("webp50", "WEBP", {"quality": 50}),
    ],
)
def test_encoders_are_pillows(noise, name, form, options):
    pixels = noise(40, 61)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    expected = np.asarray(Image.open(buffer).convert("RGB"))
    np.testing.assert_array_equal(damage_pixels(pixels, parse_level(name), 0, "a"), expected)


def test_blur_is_a_gaussian_of_one_pixel(noise):
    pixels = noise(40, 61)
    expected = gaussian_filter(pixels.astype(float), (1, 1, 0), mode="reflect")
    found = damage_pixels(pixels, parse_level("blur1"), 0, "a").astype(float)
    assert np.abs(found - expected).max() < 1  # whole levels


def test_cropped_truth_lies_on_the_cropped_pixels():
    """Boxes and masks stay where their pixels are, for any image, seed and name."""
    rng = np.random.default_rng(0)
    level = parse_level("crop")
    for trial in range(50):
        height, width = rng.integers(40, 90, 2).tolist()
        x1, x2 = sorted(rng.choice(width + 1, 2, replace=False).tolist())
        y1, y2 = sorted(rng.choice(height + 1, 2, replace=False).tolist())
        mask = np.zeros((height, width), np.uint8)
        mask[y1:y2, x1:x2] = 4
        pixels = np.repeat(mask[..., None], 3, axis=2)
        uid = f"sdxl/{trial}"
        cropped = damage_pixels(pixels, level, trial, uid)
        assert cropped.shape[:2] == (int(0.8 * height + 0.5), int(0.8 * width + 0.5))
        np.testing.assert_array_equal(damage_mask(mask, level, trial, uid), cropped[..., 0])
        drawn = np.zeros(cropped.shape[:2], np.uint8)
        for left, top, right, bottom in damage_boxes(
            [(x1, y1, x2, y2)], (height, width), level, trial, uid
        ):
            assert 0 <= left < right <= drawn.shape[1]
            assert 0 <= top < bottom <= drawn.shape[0]
            drawn[top:bottom, left:right] = 4
        np.testing.assert_array_equal(drawn, cropped[..., 0])


def test_windows_depend_on_seed_and_name_and_reach_every_place():
    windows = [crop_window((50, 100), seed, f"u{k}") for seed in (0, 1) for k in range(300)]
    assert {window.top for window in windows} == set(range(11))
    assert {window.left for window in windows} == set(range(21))
    assert windows[:300] != windows[300:]


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_left_as_it_is(noise, name):
    pixels = noise(50, 60)
    before = pixels.copy()
    damage_pixels(pixels, parse_level(name), 0, "a")
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("crop", "half")])
def test_other_levels_leave_the_truth_alone(name):
    level, mask = parse_level(name), np.ones((50, 60), np.uint8)
    assert damage_mask(mask, level, 0, "a") is mask
    assert damage_boxes([(1.5, 2, 3, 4)], (50, 60), level, 0, "a") == [(1.5, 2, 3, 4)]


@pytest.mark.parametrize("size", [(39, 100), (100, 39)])
def test_a_crop_below_32_pixels_is_refused(size):
    with pytest.raises(ArtifactNetError, match="too small: at least 32 a side"):
        damage_pixels(np.zeros((*size, 3), np.uint8), parse_level("crop"), 0, "a")
    damage_pixels(np.zeros((40, 40, 3), np.uint8), parse_level("crop"), 0, "a")


@pytest.mark.parametrize(("name", "side"), [("jpeg80", 65501), ("webp50", 16384)])
def test_what_an_encoder_cannot_hold_is_refused(name, side):
    with pytest.raises(ArtifactNetError, match=f"1x{side} pixels are more than"):
        damage_pixels(np.zeros((side, 1, 3), np.uint8), parse_level(name), 0, "a")


@pytest.mark.parametrize("name", ["", "jpeg", "jpeg0", "jpeg101", "jpeg08", "Crop", "blur2", "png"])
def test_unknown_levels_are_refused(name):
    with pytest.raises(ArtifactNetError, match="unknown level .*; known: original, crop, half"):
        parse_level(name)


def test_levels_of_the_table_have_names():
    assert [parse_level(name).name for name in damage.LEVELS] == list(damage.LEVELS)
    assert parse_level("jpeg100").quality == 100
