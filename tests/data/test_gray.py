"""Maps in files: what is read, what is refused, and how heatmaps come to their image's size."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from artifactnet.data.heatmaps import (
    read_gray,
    read_stored_map,
    resize_heatmap,
    same_aspect,
    soften_mask,
    write_map,
)
from artifactnet.types import ArtifactNetError

GRAY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def test_a_stored_map_comes_back_and_is_not_written_twice(tmp_path):
    path = tmp_path / "deep" / "a.png"
    write_map(path, GRAY)
    before = path.stat()
    write_map(path, GRAY)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert (read_stored_map(path, "a") == GRAY).all()
    path.write_bytes(path.read_bytes()[:40])  # half a file of a killed conversion
    with pytest.raises(ArtifactNetError, match="^map: "):
        read_gray(path, "map")
    write_map(path, GRAY[::-1].copy())
    assert (read_stored_map(path, "a") == GRAY[::-1]).all()
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


@pytest.mark.parametrize("mode", ["RGB", "P", "I;16", "1"])
def test_a_stored_map_has_one_channel_of_8_bits(tmp_path, mode):
    path = tmp_path / "a.png"
    Image.fromarray(np.full((4, 4), 255, np.uint8)).convert(mode).save(path)
    with pytest.raises(ArtifactNetError, match="^map: .*(type|transparent)"):
        read_stored_map(path, "map")


def test_a_map_from_elsewhere_may_be_gray_in_three_channels(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GRAY).convert("RGB").save(path)
    assert (read_gray(path, "map") == GRAY).all()
    colour = np.stack([GRAY, GRAY, GRAY[::-1]], -1)
    Image.fromarray(colour).save(path)
    with pytest.raises(ArtifactNetError, match="gray, not coloured"):
        read_gray(path.read_bytes(), "map")


@given(st.tuples(*[st.integers(1, 200)] * 4))
def test_aspect_ratio(sides):
    (height, width), image = sides[:2], sides[2:]
    ratio = Fraction(image[0], image[1])
    near = abs(Fraction(height, width) / ratio - 1) <= Fraction(1, 100)
    rounded = abs(height - width * ratio) <= 0.5 or abs(width - height / ratio) <= 0.5
    assert same_aspect((height, width), image) == (near or rounded)


@pytest.mark.parametrize(
    ("heatmap", "same"),
    [((9, 16), True), ((10, 16), False), ((9, 17), False), ((5, 8), True), ((1, 2), True)],
)
def test_a_small_map_is_rounded_to_whole_pixels(heatmap, same):
    assert same_aspect(heatmap, (1066, 1880)) == same
    if same:
        assert resize_heatmap(np.zeros(heatmap, np.uint8), (106, 188), "map").shape == (106, 188)


def test_a_heatmap_grows_linearly_and_shrinks_by_averaging():
    steps = np.array([[0, 255]], np.uint8)
    grown = resize_heatmap(np.repeat(steps, 2, 0), (4, 4), "map")
    # pixel centres at 1/8, 3/8, 5/8, 7/8 between grid points at 1/4 and 3/4
    np.testing.assert_allclose(grown, np.tile([0, 0.25, 0.75, 1], (4, 1)), atol=1e-6)
    shrunk = resize_heatmap(np.kron(GRAY, np.ones((3, 3), np.uint8)), (6, 8), "map")
    np.testing.assert_allclose(shrunk, GRAY / 255, atol=1e-6)
    assert shrunk.dtype == np.float32
    with pytest.raises(ArtifactNetError, match="map: it is 8x6, its image 6x8: another aspect"):
        resize_heatmap(GRAY, (8, 6), "map")


def test_soft_regions_against_scipy():
    mask = np.zeros((200, 240), np.uint8)
    assert not soften_mask(mask).any()
    mask[60:120, 80:150] = 8
    reference = gaussian_filter((mask > 0).astype(np.float64), 0.02 * 200, truncate=6)
    np.testing.assert_allclose(soften_mask(mask), reference, atol=2e-3)


@given(st.integers(0, 2**32 - 1))
def test_soft_regions_stay_visible_in_place_and_in_range(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((48, 64), np.uint8)
    for _ in range(int(rng.integers(1, 5))):
        top, left = int(rng.integers(46)), int(rng.integers(62))
        height, width = rng.integers(1, 12, 2)
        mask[top : top + height, left : left + width] = 1
    soft = soften_mask(mask)
    assert (soft.shape, soft.dtype) == (mask.shape, np.float32)
    assert 0 <= soft.min() <= soft.max() <= 1
    assert soft.max() > 0.7  # blurring a small region does not erase it
    assert soft[mask > 0].mean() > soft[mask == 0].mean()
