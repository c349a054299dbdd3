"""Polygons to bit fields by the benchmark's rule, and back without loss."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from artifactnet.data.masks import encode_polygons, rasterize, read_mask
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import ArtifactNetError

LABELS = [item.label for item in CATEGORIES]
coordinate = st.floats(-50, 80, allow_nan=False)
polygon = st.fixed_dictionaries(
    {
        "label": st.sampled_from(LABELS),
        "points": st.lists(st.tuples(coordinate, coordinate).map(list), min_size=3, max_size=8),
    }
)
bit_fields = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=16), elements=st.integers(0, 255)
).map(lambda mask: mask & np.uint8(0xFE))


def canonical(mask):
    """The mask as it reads back from its own polygons."""
    return rasterize(encode_polygons(mask), *mask.shape, "canonical mask")


def benchmark_mask(labels, height, width, label):
    """The benchmark's rule for one category, taken from its description."""
    mask = np.zeros((height, width), dtype=np.uint8)
    for item in labels:
        if item["label"] != label:
            continue
        points = np.array(item["points"], dtype=np.int32)
        points[:, 0] = np.clip(points[:, 0], 0, width - 1)
        points[:, 1] = np.clip(points[:, 1], 0, height - 1)
        cv2.fillPoly(mask, [points], 255)
    return mask


@given(st.lists(polygon, max_size=6), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_every_bit_equals_the_benchmark(labels, height, width):
    mask = rasterize(labels, height, width, "here")
    assert mask.dtype == np.uint8
    assert mask.shape == (height, width)
    assert not (mask & 1).any()
    for item in CATEGORIES:
        expected = benchmark_mask(labels, height, width, item.label) > 0
        np.testing.assert_array_equal(mask & item.bit > 0, expected)


def test_outline_is_inside_and_coordinates_are_truncated_and_clipped():
    points = [[1.9, 1.9], [3.99, 1.0], [3.0, 3.9], [1.0, 3.0]]
    mask = rasterize([{"label": LABELS[0], "points": points}], 6, 6, "here")
    expected = np.zeros((6, 6), dtype=bool)
    expected[1:4, 1:4] = True
    np.testing.assert_array_equal(mask > 0, expected)
    points = [[-1e30, -1e30], [1e30, -1e30], [1e30, 1e30], [-1e30, 1e30]]
    assert (rasterize([{"label": LABELS[0], "points": points}], 4, 5, "x") == 2).all()


def test_overlapping_polygons_of_one_category_do_not_cancel():
    square = [[0, 0], [4, 0], [4, 4], [0, 4]]
    mask = rasterize([{"label": LABELS[2], "points": square}] * 2, 5, 5, "here")
    assert (mask == CATEGORIES[2].bit).all()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        *[(points, "at least 3") for points in ([], None, [[0, 0]], [[0, 0], [3, 3]])],
        ([[0, 0], [1, np.nan], [2, 2]], "pairs"),
        ([[0, 0], [np.inf, 1], [2, 2]], "pairs"),
        ([[0, 0], [1], [2, 2]], "pairs"),
        ([[0, 0, 0], [1, 1, 1], [2, 2, 2]], "pairs"),
        ([0, 1, 2], "pairs"),
        ([["a", "b"], [1, 1], [2, 2]], "pairs"),
    ],
)
def test_malformed_labels(points, message):
    with pytest.raises(ArtifactNetError, match=rf"SDXL/17.*low-level-color.*{message}"):
        rasterize([{"label": "low-level-color", "points": points}], 8, 8, "SDXL/17")
    label = {"label": "low-level-smell", "points": [[0, 0], [1, 1], [2, 0]]}
    with pytest.raises(ArtifactNetError, match=r"SDXL/17.*low-level-smell.*low-level-texture"):
        rasterize([label], 8, 8, "SDXL/17")


@given(bit_fields)
@settings(max_examples=200, deadline=None)
def test_encoding_is_lossless(mask):
    labels = encode_polygons(mask)
    assert all(len(item["points"]) >= 3 for item in labels)
    np.testing.assert_array_equal(rasterize(labels, *mask.shape, where="x"), mask)
    np.testing.assert_array_equal(canonical(canonical(mask)), canonical(mask))


def test_nested_rings_keep_their_holes():
    y, x = np.mgrid[:61, :61]
    distance = np.hypot(y - 30, x - 30)
    rings = ((distance.astype(int) // 6) % 2 == 0) & (distance < 29)
    mask = rings.astype(np.uint8) * np.uint8(CATEGORIES[4].bit)
    np.testing.assert_array_equal(canonical(mask), mask)


def test_empty_masks_and_uncategorised_pixels():
    assert encode_polygons(np.zeros((4, 4), dtype=np.uint8)) == []
    with pytest.raises(ValueError, match="uncategorised"):
        encode_polygons(np.ones((2, 2), dtype=np.uint8))


def save(path, array, mode=None):
    Image.fromarray(np.asarray(array, dtype=np.uint8), mode).save(path)
    return path


def test_read_mask(tmp_path):
    path = save(tmp_path / "m.png", [[0, 255, 127], [128, 0, 254]])
    mask = read_mask(path, (2, 3), "photo.jpg")
    np.testing.assert_array_equal(mask, [[0, 1, 0], [1, 0, 1]])
    assert mask.dtype == np.uint8
    bits = np.array([[True, False]])
    Image.fromarray(bits).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png", (1, 2), "x"), bits)
    path = save(tmp_path / "rgb.png", np.repeat(bits[..., None] * 255, 3, axis=2))
    np.testing.assert_array_equal(read_mask(path, (1, 2), "x"), bits)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 6)), r"photo\.jpg.*m\.png is 6x4, the image 2x1"),
        ([[0, 1]], r"m\.png.*must be 255"),
        ([[[255, 0, 0], [0, 0, 0]]], r"m\.png.*gray"),
        ([[[255, 255, 255, 0]] * 2], r"m\.png.*transparen"),
        (None, r"m\.png: no such file"),
    ],
)
def test_unusable_masks(tmp_path, values, message):
    if values is not None:
        save(tmp_path / "m.png", values)
    with pytest.raises(ArtifactNetError, match=message):
        read_mask(tmp_path / "m.png", (1, 2), "photo.jpg")
