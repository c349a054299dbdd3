"""Every policy goes to model size and comes back to the same place."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from artifactnet.data.geometry import (
    POLICIES,
    Box,
    Geometry,
    fit_geometry,
    pad_to_frame,
    random_window,
    resample,
    resample_nearest,
    restore_map,
)

sides = st.integers(1, 90)
sizes = st.tuples(sides, sides)


def area_average(array, height, width):
    """Mean over exact (fractional) source areas, in float64 loops."""
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            total = weight = 0.0
            top, bottom = i * array.shape[0] / height, (i + 1) * array.shape[0] / height
            left, right = j * array.shape[1] / width, (j + 1) * array.shape[1] / width
            for y in range(int(top), math.ceil(bottom - 1e-9)):
                for x in range(int(left), math.ceil(right - 1e-9)):
                    share = (min(bottom, y + 1) - max(top, y)) * (min(right, x + 1) - max(left, x))
                    total += share * float(array[y, x])
                    weight += share
            out[i, j] = total / weight
    return out


def linear_axis(values, side):
    """Linear interpolation at half-pixel centres with clamped ends, in float64 loops."""
    out = np.zeros((side, *values.shape[1:]))
    for i in range(side):
        at = (i + 0.5) * len(values) / side - 0.5
        low = math.floor(at)
        first, second = max(low, 0), min(low + 1, len(values) - 1)
        out[i] = values[first] * (1 - (at - low)) + values[second] * (at - low)
    return out


@given(original=sizes, size=sizes, policy=st.sampled_from(POLICIES))
@example(original=(1, 1), size=(56, 84), policy="crop")
@example(original=(1, 5000), size=(56, 56), policy="crop")
@example(original=(5000, 1), size=(56, 56), policy="pad")
def test_boxes_lie_inside_and_touch_what_the_policy_says(original, size, policy):
    geometry = fit_geometry(original, size, policy)
    for box, outer in ((geometry.source, original), (geometry.target, size)):
        for start, side, limit in zip((box.top, box.left), box.size, outer, strict=True):
            assert 0 <= start < start + side <= limit
            assert abs(limit - side - 2 * start) <= 1  # centred: margins differ by one at most
    if policy != "crop":
        assert geometry.source.size == original
    if policy in ("stretch", "crop"):
        assert geometry.target.size == size
    if policy == "crop":
        assert any(a == b for a, b in zip(geometry.source.size, original, strict=True))
    if policy in ("pad", "reflect"):
        assert any(a == b for a, b in zip(geometry.target.size, size, strict=True))


@settings(deadline=None)
@given(
    inner=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    before=st.tuples(st.integers(0, 15), st.integers(0, 15)),
    after=st.tuples(st.integers(0, 15), st.integers(0, 15)),
    channels=st.booleans(),
)
def test_frames_are_padded_or_mirrored(inner, before, after, channels):
    size = tuple(sum(parts) for parts in zip(before, inner, after, strict=True))
    content = np.arange(1, 1 + inner[0] * inner[1] * 3, dtype=np.float32).reshape(*inner, 3)
    content = content if channels else content[..., 0]
    geometry = Geometry(inner, Box(0, 0, *inner), size, Box(*before, *inner))
    plain, mirrored = (pad_to_frame(content, geometry, mirror) for mirror in (False, True))
    assert plain.shape[:2] == mirrored.shape[:2] == size
    for y in range(size[0]):
        for x in range(size[1]):
            at = [y - before[0], x - before[1]]
            inside = 0 <= at[0] < inner[0] and 0 <= at[1] < inner[1]
            for axis in (0, 1):  # walk back to the content, one mirror at a time
                while not 0 <= at[axis] < inner[axis]:
                    at[axis] = -1 - at[axis] if at[axis] < 0 else 2 * inner[axis] - 1 - at[axis]
            assert np.array_equal(mirrored[y, x], content[at[0], at[1]])
            assert np.array_equal(plain[y, x], content[at[0], at[1]] * inside)


@given(original=sizes, size=sizes)
def test_crop_and_pad_keep_the_aspect_ratio(original, size):
    """The sides that should follow from the ratio do, to half a pixel (at least 1 pixel)."""
    source = fit_geometry(original, size, "crop").source
    scale = max(size[0] / original[0], size[1] / original[1])
    for got, side in zip(source.size, size, strict=True):
        assert got == 1 or abs(got - side / scale) <= 0.5 + 1e-9
    target = fit_geometry(original, size, "pad").target
    scale = min(size[0] / original[0], size[1] / original[1])
    for got, side in zip(target.size, original, strict=True):
        assert got == 1 or abs(got - side * scale) <= 0.5 + 1e-9


def test_unknown_policy_and_empty_image_are_refused():
    with pytest.raises(ValueError, match="'squash'; known: stretch, crop, pad"):
        fit_geometry((4, 4), (4, 4), "squash")
    with pytest.raises(ValueError, match="at least 1 pixel"):
        fit_geometry((0, 4), (4, 4), "pad")


@given(original=sizes, size=sizes, scale=st.floats(0.25, 4), seed=st.integers(0, 99))
def test_random_window_keeps_its_scale(original, size, scale, seed):
    geometry = random_window(original, size, scale, np.random.default_rng(seed))
    for axis in (0, 1):
        source, target = geometry.source.size[axis], geometry.target.size[axis]
        start = (geometry.source.top, geometry.source.left)[axis]
        offset = (geometry.target.top, geometry.target.left)[axis]
        assert 0 <= start <= original[axis] - source
        assert 0 <= offset <= size[axis] - target
        if original[axis] * scale >= size[axis]:  # the window fills the frame
            assert target == size[axis]
            assert source in (1, original[axis]) or abs(source - size[axis] / scale) <= 0.5
        else:  # the whole axis is seen, smaller than the frame
            assert source == original[axis]
            assert target == max(1, round(original[axis] * scale))


def test_random_window_reaches_both_ends_evenly():
    starts = [random_window((9, 9), (5, 12), 1.0, np.random.default_rng(s)) for s in range(400)]
    tops, lefts = (
        np.bincount(axis)
        for axis in zip(*((g.source.top, g.target.left) for g in starts), strict=True)
    )
    assert (len(tops), len(lefts)) == (5, 4)
    assert tops.min() > 50
    assert lefts.min() > 65


@settings(deadline=None, max_examples=60)
@given(was=st.tuples(st.integers(1, 14), st.integers(1, 14)), now=st.tuples(sides, sides))
def test_resample_is_area_along_shrinking_axes_and_linear_along_growing_ones(was, now):
    array = np.random.default_rng(was[0] * 100 + was[1]).random(was, dtype=np.float32)
    height, width = min(was[0], now[0]), min(was[1], now[1])
    expected = area_average(array.astype(np.float64), height, width)
    expected = linear_axis(linear_axis(expected, now[0]).T, now[1]).T
    np.testing.assert_allclose(resample(array, now), expected, atol=2e-5)


@given(was=sizes, now=sizes)
def test_nearest_takes_the_pixel_under_the_centre(was, now):
    mask = np.arange(was[0] * was[1]).astype(np.uint8).reshape(was)
    got = resample_nearest(mask, now)
    assert got.dtype == np.uint8
    for i in range(0, now[0], 7):
        for j in range(0, now[1], 7):
            # Exact in integers: floor((i + 1/2) * was / now).
            row, column = (2 * i + 1) * was[0] // (2 * now[0]), (2 * j + 1) * was[1] // (2 * now[1])
            assert got[i, j] == mask[row, column]


@settings(deadline=None)
@given(
    original=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    size=st.sampled_from([(56, 56), (42, 70), (70, 28)]),
    policy=st.sampled_from(POLICIES),
    at=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_a_blob_on_the_grid_comes_back_where_it_was(original, size, policy, at):
    """A bright patch of the model's grid lands on the pixels that the patch looked at."""
    geometry = fit_geometry(original, size, policy)
    source, target = geometry.source, geometry.target
    grid = (size[0] // 14, size[1] // 14)
    # A point of the frame inside the image, and the patch that holds it.
    y = target.top + at[0] * target.height
    x = target.left + at[1] * target.width
    heatmap = np.zeros(grid, np.float32)
    row, column = int(y // 14), int(x // 14)
    heatmap[row, column] = 1.0
    back = restore_map(heatmap, geometry)
    assert back.shape == original
    assert back.dtype == np.float32
    # By hand: each original pixel's centre in the frame, then in the patch grid, a linear tent.
    ys = target.top + (np.arange(source.height) + 0.5) * target.height / source.height
    xs = target.left + (np.arange(source.width) + 0.5) * target.width / source.width
    tents = []
    for centres, index, cells in ((ys, row, grid[0]), (xs, column, grid[1])):
        position = np.clip(centres / 14 - 0.5, 0, cells - 1)
        tents.append(np.clip(1 - np.abs(position - index), 0, None))
    expected = np.outer(*tents)
    got = back[source.slices]
    # Growing in two linear steps, and averaging when shrinking, bend the tent a little.
    shrink = max(1.0, target.height / source.height, target.width / source.width)
    assert np.abs(got - expected).max() <= min(1.0, 0.12 * shrink)
    outside = back.copy()
    outside[source.slices] = 0
    assert not outside.any()


@settings(deadline=None, max_examples=50)
@given(
    original=st.tuples(st.integers(20, 200), st.integers(20, 200)),
    policy=st.sampled_from(POLICIES),
    at=st.tuples(st.floats(0.25, 0.75), st.floats(0.25, 0.75)),
)
def test_there_and_back_keeps_a_blobs_centre(original, policy, at):
    geometry = fit_geometry(original, (64, 96), policy)
    box = geometry.source
    y, x = box.top + at[0] * box.height, box.left + at[1] * box.width
    rows, columns = np.mgrid[: original[0], : original[1]] + 0.5
    spread = (box.height / 12) ** 2, (box.width / 12) ** 2
    blob = np.exp(-((rows - y) ** 2) / spread[0] - (columns - x) ** 2 / spread[1])
    frame = np.zeros((64, 96), np.float32)
    seen = blob.astype(np.float32)[box.slices]
    frame[geometry.target.slices] = resample(seen, geometry.target.size)
    back = restore_map(frame, geometry)
    target = geometry.target
    pixel = max(1.0, box.height / target.height), max(1.0, box.width / target.width)
    assert abs((back * rows).sum() / back.sum() - y) < pixel[0]
    assert abs((back * columns).sum() / back.sum() - x) < pixel[1]
    peak = np.unravel_index(back.argmax(), back.shape)
    assert abs(peak[0] + 0.5 - y) <= 2 * pixel[0]
    assert abs(peak[1] + 0.5 - x) <= 2 * pixel[1]


@given(original=sizes, grid=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_restored_values_stay_in_the_maps_range(original, grid):
    heatmap = np.random.default_rng(0).random(grid, dtype=np.float32)
    geometry = fit_geometry(original, (63, 63), "stretch")
    back = restore_map(heatmap, geometry)
    assert heatmap.min() <= back.min() <= back.max() <= heatmap.max()
    for bad in (heatmap[None], heatmap[:0]):
        with pytest.raises(ValueError, match="non-empty"):
            restore_map(bad, geometry)
