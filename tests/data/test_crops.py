"""Crops of entities: which pixels, and how small ones grow."""

import numpy as np
import pytest

from artifactnet.data.crops import crop_entity, crop_size


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


def test_a_box_is_rounded_outwards(pixels):
    crop = crop_entity(pixels, (10.2, 4.0, 70.1, 80.9))
    assert np.array_equal(crop, pixels[4:81, 10:71])


def test_a_box_ends_with_the_image(pixels):
    assert np.array_equal(crop_entity(pixels, (0, 0, 120.0, 90.0)), pixels)


@pytest.mark.parametrize(
    ("box", "shape"),
    [((0, 0, 28, 14), (56, 112)), ((3, 3, 4, 4), (56, 56)), ((0, 0, 20, 60), (168, 56))],
)
def test_a_small_crop_grows_and_keeps_its_shape(pixels, box, shape):
    assert crop_entity(pixels, box).shape == (*shape, 3)
    assert crop_size(box, (120, 90)) == shape[::-1]


def test_the_size_of_a_crop_is_known_without_its_pixels(pixels):
    for box in ((10.2, 4.0, 70.1, 80.9), (0, 0, 120.0, 90.0), (0, 89.5, 120.0, 90.0)):
        height, width, _ = crop_entity(pixels, box).shape
        assert crop_size(box, (120, 90)) == (width, height)


def test_growing_is_bicubic(pixels):
    """Keys' kernel with a = -0.75, as OpenCV has it, at one place inside."""
    crop = crop_entity(pixels, (0, 0, 28, 28)).astype(float)
    place = (20 + 0.5) / 2 - 0.5  # 9.75: between the pixels 9 and 10
    first, t, a = int(place) - 1, place % 1, -0.75
    near = lambda x: (a + 2) * x**3 - (a + 3) * x**2 + 1  # noqa: E731
    far = lambda x: a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a  # noqa: E731
    w = np.array([far(1 + t), near(t), near(1 - t), far(2 - t)])
    block = pixels[first : first + 4, first : first + 4].astype(float)
    expected = np.clip(np.einsum("i,j,ijc->c", w, w, block), 0, 255)
    assert np.abs(crop[20, 20] - expected).max() <= 1
