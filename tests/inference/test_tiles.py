"""Tiles: every pixel covered, weights that sum to one, no seams, nothing lost to blending."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.data.transforms import Preprocess
from artifactnet.inference.tiles import MAX_OVERLAP, tile_plan, tiled_probabilities, windows
from artifactnet.types import ArtifactNetError

sides, tile_sides = st.integers(1, 400), st.integers(1, 90)
overlaps = st.floats(0, MAX_OVERLAP)


def tiled(model, image, overlap=0.25, batch_size=4):
    preprocess = Preprocess(model.image_size, model.config.resize, model.mean, model.std)
    return tiled_probabilities(model, preprocess, image, overlap, batch_size)


def of_pixels(model, image):
    """The model's answer about each pixel of the image as it is."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
    logits = torch.nn.functional.conv2d(
        tensor, model.conv.weight.detach().double(), model.conv.bias.detach().double()
    )[0]
    shares = logits.softmax(0)[1:] if len(logits) == 8 else logits.sigmoid()
    return shares.numpy()


# --- the plan -----------------------------------------------------------------------------


@given(sides, sides, st.tuples(tile_sides, tile_sides), overlaps)
@settings(max_examples=150, deadline=None)
def test_every_pixel_is_covered(height, width, tile, overlap):
    seen = np.zeros((height, width), int)
    plan = tile_plan(height, width, tile, overlap)
    for box in plan:
        assert box.size == (min(height, tile[0]), min(width, tile[1]))
        assert box.top >= 0
        assert box.left >= 0
        assert box.top + box.height <= height
        assert box.left + box.width <= width
        seen[box.slices] += 1
    assert seen.min() >= 1
    assert len({(box.top, box.left) for box in plan}) == len(plan)


@given(sides, tile_sides, overlaps)
@settings(max_examples=150, deadline=None)
def test_neighbours_overlap_as_asked_and_evenly(length, tile, overlap):
    starts = [box.left for box in tile_plan(1, length, (1, tile), overlap)]
    steps = np.diff(starts)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - tile)
    if len(steps):
        assert steps.max() - steps.min() <= 1
        assert steps.max() <= max(1, tile * (1 - overlap)) + 1
        assert steps.max() <= tile  # no gap


def test_no_more_tiles_than_needed():
    assert [box.left for box in tile_plan(1, 100, (1, 50), 0.0)] == [0, 50]
    assert [box.left for box in tile_plan(1, 101, (1, 50), 0.0)] == [0, 26, 51]
    assert [box.left for box in tile_plan(1, 90, (1, 50), 0.2)] == [0, 40]
    assert len(tile_plan(50, 50, (50, 50), 0.5)) == 1


@pytest.mark.parametrize("overlap", [-0.1, 0.95, float("nan")])
def test_an_overlap_out_of_range(overlap):
    with pytest.raises(ValueError, match="overlap"):
        tile_plan(10, 10, (4, 4), overlap)


@pytest.mark.parametrize(("height", "tile"), [(0, 4), (4, 0)])
def test_sides_without_pixels(height, tile):
    with pytest.raises(ValueError, match="at least 1 pixel"):
        tile_plan(height, 10, (tile, 4), 0.1)


# --- the windows --------------------------------------------------------------------------


@given(sides, tile_sides, overlaps)
@settings(max_examples=150, deadline=None)
def test_weights_sum_to_one_everywhere(length, tile, overlap):
    starts = [box.left for box in tile_plan(1, length, (1, tile), overlap)]
    size = min(tile, length)
    total = np.zeros(length)
    for start, weights in zip(starts, windows(starts, size, length), strict=True):
        assert weights.dtype == np.float32
        assert weights.shape == (size,)
        assert 0 < weights.min() <= weights.max() <= 1
        total[start : start + size] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_two_tiles_cross_fade_along_a_squared_sine():
    first, second = windows([0, 6], 10, 16)
    rise = np.sin(np.pi / 2 * (np.arange(4) + 0.5) / 4) ** 2
    np.testing.assert_allclose(second[:4], rise, atol=1e-6)
    np.testing.assert_allclose(first[6:], rise[::-1], atol=1e-6)
    assert (first[:6] == 1).all()
    assert (second[4:] == 1).all()


def test_touching_tiles_do_not_fade():
    assert all((w == 1).all() for w in windows([0, 5], 5, 10))


# --- maps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["softmax", "sigmoid"])
@pytest.mark.parametrize("size", [(16, 24), (16, 25), (61, 83), (40, 24), (200, 31)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.7])
def test_a_model_of_single_pixels_gives_one_map(pixel_model, noise, labels, size, overlap):
    """Whatever the tiles, each pixel has the answer that it has alone."""
    model, image = pixel_model((16, 24), labels, slope=5.0), noise(*size)
    found = tiled(model, image, overlap)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, of_pixels(model, image), atol=2e-6)


def test_a_strip_narrower_than_a_tile_is_padded(pixel_model, noise):
    """At its own resolution: no pixel is interpolated."""
    model, image = pixel_model((16, 24), slope=5.0), noise(9, 100)
    np.testing.assert_allclose(tiled(model, image), of_pixels(model, image), atol=2e-6)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_an_image_smaller_than_a_tile_is_enlarged_whole(pixel_model, resize):
    model = pixel_model((32, 48), slope=5.0, resize=resize)
    image = np.full((7, 11, 3), (200, 30, 90), np.uint8)
    found = tiled(model, image)
    assert found.shape == (7, 7, 11)
    np.testing.assert_allclose(found, of_pixels(model, image), atol=1e-5)
    assert [batch for batch, _, _ in model.calls] == [1]


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 140, 10)])
def test_constant_images_give_constant_maps(pixel_model, color):
    model = pixel_model((16, 16), slope=3.0)
    found = tiled(model, np.full((70, 45, 3), color, np.uint8), overlap=0.4)
    assert np.ptp(found, axis=(1, 2)).max() < 1e-6
    assert found.max() <= 1


class Moody(torch.nn.Module):
    """A model that finds everything in one tile and nothing in the next."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        for name in ("config", "image_size", "mean", "std"):
            setattr(self, name, getattr(model, name))
        self.count = 0

    def forward(self, images, **options):
        output = self.model(images, **options)
        for k in range(len(images)):
            output.segmentation[k] = 0.0
            output.segmentation[k, 1] = 50.0 * (-1) ** self.count
            self.count += 1
        return output


def steepest(plane):
    return max(np.abs(np.diff(plane, axis=0)).max(), np.abs(np.diff(plane, axis=1)).max())


def test_no_seams(pixel_model):
    """Even tiles that contradict each other blend no steeper than the window rises."""
    image = np.zeros((32, 160, 3), np.uint8)
    soft = tiled(Moody(pixel_model((32, 32))), image, overlap=0.5)[0]
    assert np.ptp(soft) > 0.95  # the tiles do differ
    assert steepest(soft) <= np.pi / 2 / 16 + 1e-3
    hard = tiled(Moody(pixel_model((32, 32))), image, overlap=0.0)[0]
    assert steepest(hard) > 0.9


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_tiles_pass_in_batches(pixel_model, noise, batch_size):
    model = pixel_model((16, 16))
    tiled(model, noise(16, 70), 0.25, batch_size)
    count = len(tile_plan(16, 70, (16, 16), 0.25))
    batches = [batch for batch, _, _ in model.calls]
    assert sum(batches) == count
    assert max(batches) == min(batch_size, count)
    assert all(segmentation and not attention for _, attention, segmentation in model.calls)


def test_memory_is_one_map(pixel_model, noise):
    model, image = pixel_model((64, 64)), noise(1200, 1000)
    tracemalloc.start()
    found = tiled(model, image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * found.nbytes


def test_a_tile_that_is_no_number_is_not_believed(pixel_model, noise):
    model = pixel_model((16, 16))
    model.conv.bias.data[3] = float("nan")
    with pytest.raises(ArtifactNetError, match="not a number"):
        tiled(model, noise(30, 30))
