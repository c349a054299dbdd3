"""Red lines around defects: where they run and how wide."""

import io

import numpy as np
import pytest
from annotated_files import png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from artifactnet.annotation.contours import circle_defects, draw_jpeg, read_region
from artifactnet.annotation.pictures import MAX_SIDE
from artifactnet.types import ArtifactNetError

GRAY = 90


def plain(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GRAY, np.uint8)


def drawn_on(region: np.ndarray) -> np.ndarray:
    """Which pixels `circle_defects` changes."""
    image = plain(*region.shape)
    result = circle_defects(image, region)
    changed = (result != image).any(axis=2)
    assert (result[changed] == (255, 0, 0)).all()
    assert (image == GRAY).all(), "the image itself is left alone"
    return changed


def pieces(mask: np.ndarray) -> int:
    """Number of 8-connected sets, by flooding."""
    left = {tuple(p) for p in np.argwhere(mask)}
    count = 0
    while left:
        count += 1
        queue = [left.pop()]
        while queue:
            y, x = queue.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            queue += near
    return count


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(40, 120), st.integers(40, 120))
def test_line_surrounds_a_defect_and_covers_none(seed, height, width):
    rng = np.random.default_rng(seed)
    region = np.zeros((height, width), bool)
    top, left = rng.integers(8, 20, 2)
    bottom, right = top + rng.integers(1, height - 30), left + rng.integers(1, width - 30)
    region[top:bottom, left:right] = True
    line = drawn_on(region)
    assert not (line & region).any()
    for y, x in ((top, left), (bottom - 1, right - 1)):
        for ray in (line[:y, x], line[y:, x], line[y, :x], line[y, x:]):
            assert ray.any(), "whoever leaves the defect crosses the line"
    near = np.zeros_like(line)
    near[max(0, top - 6) : bottom + 6, max(0, left - 6) : right + 6] = True
    assert not (line & ~near).any()


def test_every_defect_has_its_own_line():
    region = np.zeros((100, 200), bool)
    region[10:20, 10:20] = region[10:20, 100:150] = region[60:61, 180:181] = True
    assert pieces(drawn_on(region)) == 3


def test_a_hole_is_outlined_too():
    region = np.zeros((120, 120), bool)
    region[10:110, 10:110] = True
    region[40:80, 40:80] = False
    line = drawn_on(region)
    assert pieces(line) == 2
    assert line[40:80, 40:80].any()
    assert not (line & region).any()


@pytest.mark.parametrize(("side", "width"), [(64, 2), (400, 2), (1000, 5), (2000, 10)])
def test_width_follows_the_image(side, width):
    region = np.zeros((100, side), bool)
    region[45:55, 30:34] = True
    row = drawn_on(region)[50]
    runs = np.flatnonzero(np.diff(np.r_[0, row.astype(int), 0]))
    widths = runs[1::2] - runs[::2]
    assert len(widths) == 2
    assert (widths == width).all()


def test_defect_at_the_border_has_a_closed_line():
    region = np.zeros((60, 60), bool)
    region[20:40, :15] = True
    line = drawn_on(region)
    assert line[20:40, :2].all()
    assert not (line & region)[:, 2:].any()
    assert pieces(~line) == 2, "inside and outside are apart"


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (1, 50)])
def test_images_of_a_few_pixels(size):
    assert drawn_on(np.ones(size, bool)).any()


def test_jpeg_of_bounded_size_with_red_in_it():
    image = plain(40, 3 * MAX_SIDE)
    region = np.zeros(image.shape[:2], bool)
    region[20, 3000] = True  # a third of a pixel in the picture
    with Image.open(io.BytesIO(draw_jpeg(image, region))) as file:
        assert file.format == "JPEG"
        assert file.size == (MAX_SIDE, 13)
        pixels = np.asarray(file).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 80)
    assert red.any()
    assert abs(np.argwhere(red)[:, 1].mean() - 1000) < 15


def write(folder, pixels):
    path = folder / "m.png"
    path.write_bytes(png(pixels))
    return path


@pytest.mark.parametrize(
    ("values", "bit_field", "wanted"),
    [([0, 127, 128, 255], False, [0, 0, 1, 1]), ([0, 1, 2, 128], True, [0, 1, 1, 1])],
)
def test_heatmaps_from_one_half_and_bit_fields_of_any_category(tmp_path, values, bit_field, wanted):
    region = read_region(write(tmp_path, np.array([values], np.uint8)), (1, 4), bit_field)
    assert region.dtype == bool
    assert region.tolist() == [wanted]


@pytest.mark.parametrize("bit_field", [False, True])
def test_map_of_another_size_is_resized(tmp_path, bit_field):
    pixels = np.zeros((10, 20), np.uint8)
    pixels[2:6, 4:12] = 2 if bit_field else 255
    path = write(tmp_path, pixels)
    region = read_region(path, (40, 80), bit_field)
    assert region.shape == (40, 80)
    assert region[12:20, 20:44].all()
    assert not region[:5].any()
    assert region.sum() == pytest.approx(4 * 8 * 16, rel=0.1)
    with pytest.raises(ArtifactNetError, match=r"m\.png.*20x10.*80x80"):
        read_region(path, (80, 80), bit_field)


@pytest.mark.parametrize(
    ("value", "bit_field", "said"),
    [
        (0, False, "nothing"),
        (0, True, "nothing"),
        (100, False, "100 of 255"),
        (4, False, "--bit-fields"),
    ],
)
def test_map_that_marks_nothing(tmp_path, value, bit_field, said):
    pixels = np.full((4, 4), value, np.uint8)
    with pytest.raises(ArtifactNetError, match=said):
        read_region(write(tmp_path, pixels), (4, 4), bit_field)


def test_coloured_or_broken_map_is_refused(tmp_path):
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[..., 0] = 255
    with pytest.raises(ArtifactNetError, match="gray"):
        read_region(write(tmp_path, colour), (4, 4), False)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(ArtifactNetError, match=r"b\.png"):
        read_region(tmp_path / "b.png", (4, 4), False)
