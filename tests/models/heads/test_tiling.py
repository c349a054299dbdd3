"""Grids as InternVL chooses them; tiles that come back in place."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.config import HeatmapConfig
from artifactnet.models.heads.tiling import adapted_size, choose_grid, cut, stitch

SIDES = st.tuples(st.integers(1, 2000), st.integers(1, 2000))
GRIDS = st.tuples(st.integers(1, 4), st.integers(1, 4))


def internvl_grid(height, width, tile, max_tiles):
    """Dynamic tiling of the InternVL paper, every step spelled out."""
    best_of = {}  # distance of the aspect ratio -> grids that have it, fewest tiles first
    for tiles in range(1, max_tiles + 1):
        for columns in range(1, tiles + 1):
            if tiles % columns == 0:
                rows = tiles // columns
                distance = abs(width / height - columns / rows)
                best_of.setdefault(distance, []).append((rows, columns))
    first, *larger = best_of[min(best_of)]
    for rows, columns in larger:
        if width * height > 0.5 * tile * tile * rows * columns:
            first = (rows, columns)
    return first


@settings(deadline=None, max_examples=300)
@given(
    size=SIDES | SIDES.map(lambda side: side[:1] * 2),  # squares are where grids tie
    tile=st.sampled_from([1, 112, 448]),
    max_tiles=st.integers(1, 12),
)
def test_grid_equals_the_reference(size, tile, max_tiles):
    height, width = size
    rows, columns = choose_grid(height, width, tile, max_tiles)
    assert rows * columns <= max_tiles
    assert (rows, columns) == internvl_grid(height, width, tile, max_tiles)


def test_only_an_adaptive_mapper_sees_images_at_a_size_of_their_own():
    mapper = HeatmapConfig(head="mapper", tile=32, max_tiles=6)
    assert adapted_size(mapper, 100, 310) == (32, 96)
    assert adapted_size(HeatmapConfig(head="mapper", adaptive=False), 100, 310) is None
    assert adapted_size(HeatmapConfig(head="decoder"), 100, 310) is None


@settings(deadline=None)
@given(batch=st.integers(1, 3), grid=GRIDS, tile=st.integers(1, 5))
def test_tiles_are_the_pieces_of_the_image_and_come_back_in_place(batch, grid, tile):
    rows, columns = grid
    images = torch.arange(batch * 3 * rows * columns * tile * tile, dtype=torch.float32)
    images = images.reshape(batch, 3, rows * tile, columns * tile)
    thumbnails, tiles, found = cut(images, tile)
    assert found == grid
    assert thumbnails.shape == (batch, 3, tile, tile)
    index = 0
    for image in images:
        for r in range(rows):
            for c in range(columns):
                piece = image[:, r * tile : (r + 1) * tile, c * tile : (c + 1) * tile]
                assert torch.equal(tiles[index], piece)
                index += 1
    assert index == len(tiles)
    assert torch.equal(stitch(tiles, grid), images)


def test_thumbnail_averages_what_it_leaves_out():
    image = torch.zeros(1, 3, 8, 16)
    image[..., ::2] = 1  # stripes of one pixel: a plain resize would take one of the two
    thumbnails, _, _ = cut(image, 4)
    torch.testing.assert_close(thumbnails, torch.full((1, 3, 4, 4), 0.5), atol=0.1, rtol=0)
    same = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(cut(same, 4)[0], same)


def test_sizes_that_do_not_fit_are_refused():
    for bad in [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0)]:
        with pytest.raises(ValueError, match="at least 1"):
            choose_grid(*bad)
    for height, width in [(9, 8), (8, 9), (2, 4), (0, 4)]:
        with pytest.raises(ValueError, match=f"{height}x{width} pixels"):
            cut(torch.zeros(1, 3, height, width), 4)
    for shape in [(7, 1, 2, 2), (6, 2, 2)]:
        with pytest.raises(ValueError, match="2x3"):
            stitch(torch.zeros(shape), (2, 3))
