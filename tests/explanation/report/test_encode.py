"""Pictures of the page: their size, their colours, and the budget that they keep."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from artifactnet.explanation.methods import METHODS
from artifactnet.explanation.overlay import colorize
from artifactnet.explanation.report import encode as pictures
from artifactnet.explanation.report.encode import BUDGET, COLORS, encode, fit
from artifactnet.taxonomy import CATEGORIES

RNG = np.random.default_rng(0)
TEXTURES, PHYSICS = CATEGORIES[0], CATEGORIES[6]


def opened(uri):
    head, _, content = uri.partition(",")
    kind = head.removeprefix("data:image/").removesuffix(";base64")
    image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
    assert image.format.lower() == kind
    return image


def rgba(uri):
    return np.asarray(opened(uri).convert("RGBA"))


def noise(height, width, channels=3):
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def total(found):
    return len(found.thumb) + sum(len(uri) for uri in found.layers.values())


@given(height=st.integers(1, 9000), width=st.integers(1, 9000), side=st.integers(1, 700))
def test_fit_keeps_the_aspect_ratio_to_the_pixel(height, width, side):
    fitted = fit((height, width), side)
    scale = min(1, side / max(height, width))
    for was, now in zip((height, width), fitted, strict=True):
        assert 1 <= now <= min(was, side)
        assert abs(now - was * scale) <= 0.5 or (now == 1 and was * scale < 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (5, 1300), (333, 77), (200, 640)])
def test_every_layer_shows_the_whole_image(size):
    pixels = noise(*size)
    mask = np.zeros(size, np.uint8)
    found = encode(pixels, {"m": RNG.random(size, dtype=np.float32)}, mask, mask)
    assert sorted(found.layers) == ["annotation", "heat:m", "image", "mask"]
    sizes = {key: opened(uri).size[::-1] for key, uri in found.layers.items()}
    assert opened(found.thumb).size[::-1] == fit(size, 192)
    assert sizes["image"] == sizes["mask"] == sizes["annotation"] == fit(size, 640)
    assert sizes["heat:m"] == fit(size, 160)
    assert total(found) <= BUDGET


def test_nothing_is_shifted():
    """A border at a third of the width is there in every layer."""
    height, width, border = 450, 900, 300
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, border:] = 255
    heatmap = np.zeros((height, width), np.float32)
    heatmap[:, border:] = 1
    mask = np.zeros((height, width), np.uint8)
    mask[:, border:] = TEXTURES.bit
    found = encode(pixels, {"m": heatmap}, mask)
    for key, channel in (("image", 0), ("heat:m", 3), ("mask", 3)):
        plane = rgba(found.layers[key])[..., channel]
        first = np.argmax(plane > 60, axis=1)
        assert abs(first / plane.shape[1] - border / width).max() <= 1 / plane.shape[1]


def test_a_heatmap_is_coloured_as_opaque_as_it_is_high_and_averaged():
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    found = rgba(pictures.heat_uri(values, 160))
    assert (found[..., :3] == colorize(values)).all()
    assert (found[..., 3].ravel() == np.arange(256)).all()
    board = np.indices((320, 320)).sum(axis=0) % 2
    found = rgba(pictures.heat_uri(board.astype(np.float32), 160))
    assert found.shape == (160, 160, 4)
    assert (abs(found[..., 3].astype(int) - 127.5) <= 0.5).all()


def shrunk_by_loops(mask, size):
    out = np.zeros(size, np.uint8)
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            rows = [r for r in range(size[0]) if r * mask.shape[0] // size[0] <= y]
            columns = [c for c in range(size[1]) if c * mask.shape[1] // size[1] <= x]
            out[rows[-1], columns[-1]] |= mask[y, x]
    return out


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    share=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
    seed=st.integers(0, 99),
)
def test_shrinking_a_mask_is_a_union(height, width, share, seed):
    mask = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    size = max(1, int(height * share[0])), max(1, int(width * share[1]))
    assert (pictures.shrink_mask(mask, size) == shrunk_by_loops(mask, size)).all()


def test_no_region_vanishes():
    mask = np.zeros((3000, 4000), np.uint8)
    mask[1234, 2345] = PHYSICS.bit
    found = rgba(pictures.mask_uri(mask, 320))
    assert found.shape == (240, 320, 4)
    (y, x), = np.argwhere(found[..., 3]).tolist()  # fmt: skip
    assert (y, x) == (1234 * 240 // 3000, 2345 * 320 // 4000)
    assert found[y, x].tolist() == [*PHYSICS.color, 255]


def test_the_smaller_of_two_regions_lies_on_top():
    mask = np.zeros((60, 60), np.uint8)
    mask[5:55, 5:55] |= PHYSICS.bit
    mask[20:40, 20:40] |= TEXTURES.bit
    found = rgba(pictures.mask_uri(mask, 640))
    assert found[30, 30, :3].tolist() == list(TEXTURES.color)
    assert found[10, 10, :3].tolist() == list(PHYSICS.color)
    mask[30, 10] |= 1  # an artifact without category
    found = rgba(pictures.mask_uri(mask, 640))
    assert found[30, 10].tolist() == [*COLORS[1], 255]


def test_noise_with_every_method_there_is():
    size = (200, 310)
    heatmaps = {name: RNG.random(size, dtype=np.float32) for name in METHODS}
    mask = RNG.integers(0, 256, size).astype(np.uint8)
    found = encode(noise(*size), heatmaps, mask, mask)
    assert total(found) <= BUDGET
    assert opened(found.layers["image"]).size == opened(found.layers["mask"]).size


def test_bad_layers_are_refused():
    empty = np.zeros((9, 8), np.float32)
    for maps, mask, key in (
        ({}, np.zeros((9, 8), np.uint8), "mask"),
        ({"m": empty}, None, "m"),
        ({"m": np.full((9, 9), np.nan, np.float32)}, None, "NaN"),
        ({f"m{k}": np.zeros((9, 9), np.float32) for k in range(200)}, None, "fit"),
    ):
        with pytest.raises(ValueError, match=key):
            encode(noise(9, 9), maps, mask)
    clipped = np.array([[-1, 2]], np.float32)
    assert pictures.heat_uri(clipped, 160) == pictures.heat_uri(clipped.clip(0, 1), 160)
