import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.explanation import overlay
from artifactnet.taxonomy import CATEGORIES

GRAY = np.full((12, 16, 3), 100, dtype=np.uint8)


def test_colorize_ends_and_brightness() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    colors = overlay.colorize(ramp)
    assert colors.shape == (1, 256, 3)
    assert colors.dtype == np.uint8
    assert colors[0, 0].tolist() == [0, 0, 0]
    luminance = colors[0].astype(np.float64) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) >= -0.8).all()  # rounding to whole colours apart


def test_overlay_shows_the_image_where_the_map_is_zero() -> None:
    heatmap = np.zeros((3, 4), dtype=np.float32)
    assert (overlay.overlay(GRAY, heatmap) == GRAY).all()
    heatmap[0, 0] = 1
    drawn = overlay.overlay(GRAY, heatmap, opacity=1.0)
    assert (drawn[0, 0] == overlay.colorize(np.ones((1, 1), np.float32))).all()
    assert (drawn[8:, 12:] == GRAY[8:, 12:]).all()


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    out=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 99),
)
def test_resize_keeps_the_range(height: int, width: int, out: tuple[int, int], seed: int) -> None:
    heatmap = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    resized = overlay.resize_map(heatmap, *out)
    assert resized.shape == out
    assert resized.min() >= heatmap.min() - 1e-6
    assert resized.max() <= heatmap.max() + 1e-6


def test_outline_draws_borders_only() -> None:
    mask = np.zeros((12, 16), dtype=np.uint8)
    mask[2:8, 3:10] = CATEGORIES[1].bit
    drawn = overlay.outline(GRAY, mask)
    changed = (drawn != GRAY).any(axis=2)
    expected = np.zeros_like(changed)
    expected[2:8, 3:10] = True
    expected[3:7, 4:9] = False
    assert (changed == expected).all()
    assert drawn[2, 3].tolist() == list(CATEGORIES[1].color)
    for bit in range(8):
        mask = np.zeros((12, 16), dtype=np.uint8)
        mask[4, 4] = 1 << bit
        drawn = overlay.outline(GRAY, mask)
        assert (drawn != GRAY).any(axis=2).sum() == 1
    assert (overlay.outline(GRAY, np.zeros((12, 16), np.uint8)) == GRAY).all()
    with pytest.raises(ValueError, match="mask"):
        overlay.outline(GRAY, np.zeros((3, 3), np.uint8))


def test_grid_places_pictures_and_captions() -> None:
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 255
    picture = overlay.grid([[red, GRAY], [GRAY]], [["a caption that is too long", "b"], ["c"]])
    assert picture.ndim == 3
    assert (picture == [255, 0, 0]).all(axis=2).sum() == 20 * 30
    assert (picture == [100, 100, 100]).all(axis=2).sum() >= 2 * 12 * 16
    assert (picture.max(axis=2) < 90).any()  # ink of the captions
    with pytest.raises(ValueError, match="captions"):
        overlay.grid([[red]], [["a", "b"]])
    with pytest.raises(ValueError, match="at least one"):
        overlay.grid([], [])
