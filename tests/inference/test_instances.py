"""From logits to maps, masks and regions, against loops, a flood fill and their own outlines."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from artifactnet.data.geometry import fit_geometry
from artifactnet.inference import instances
from artifactnet.inference.instances import (
    find_artifacts,
    find_instances,
    frame_probabilities,
    restore_planes,
)
from artifactnet.taxonomy import BY_LABEL, UNCATEGORIZED
from artifactnet.types import ArtifactNetError

# --- maps and masks ---


def bilinear(plane, height, width):
    """Half-pixel centres, clamped at the borders (align_corners=False), loops in float64."""
    h, w = len(plane), len(plane[0])
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            sy = max((y + 0.5) * h / height - 0.5, 0.0)
            sx = max((x + 0.5) * w / width - 0.5, 0.0)
            y0, x0 = min(int(sy), h - 1), min(int(sx), w - 1)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            fy, fx = sy - y0, sx - x0
            top = plane[y0][x0] * (1 - fx) + plane[y0][x1] * fx
            bottom = plane[y1][x0] * (1 - fx) + plane[y1][x1] * fx
            out[y, x] = top * (1 - fy) + bottom * fy
    return out


@pytest.mark.parametrize("channels", [7, 8])
def test_logits_are_interpolated_then_squashed(channels):
    logits = torch.randn(channels, 3, 5, generator=torch.Generator().manual_seed(1)) * 4
    found = frame_probabilities(logits, (9, 12))
    full = np.stack([bilinear(plane, 9, 12) for plane in logits.double().numpy()])
    if channels == 8:
        odds = np.exp(full - full.max(0))
        expected = (odds / odds.sum(0))[1:]
    else:
        expected = 1 / (1 + np.exp(-full))
    assert found.shape == (7, 9, 12)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_map_with_nan_or_inf_is_refused(value):
    logits = torch.zeros(8, 4, 4)
    logits[2, 1, 1] = value
    with pytest.raises(ArtifactNetError, match="NaN"):
        frame_probabilities(logits, (8, 8))


@pytest.mark.parametrize("policy", ["stretch", "crop", "pad"])
def test_planes_come_back_in_their_order(policy):
    geometry = fit_geometry((30, 50), (16, 16), policy)
    planes = np.stack([np.full((16, 16), (k + 1) / 8, np.float32) for k in range(7)])
    restored = restore_planes(planes, geometry)
    assert restored.shape == (7, 30, 50)
    seen = np.zeros((30, 50), bool)
    seen[geometry.source.slices] = True
    for k, plane in enumerate(restored):
        assert (plane[seen] == np.float32((k + 1) / 8)).all()
        assert (plane[~seen] == 0).all()
    assert seen.all() == (policy != "crop")


def expected_pixel(values, threshold, exclusive, known):
    """Any-artifact probability and bits of one pixel, in plain Python."""
    some = min(float(np.float32(values).sum()), 1.0) if exclusive else float(max(values))
    if not some > threshold:
        return some, 0
    if exclusive:
        best = max(known, key=lambda c: (values[c - 1], -c), default=None)
        return some, 1 << best if best else 1
    bits = sum(1 << c for c in known if values[c - 1] > threshold)
    return some, bits or 1


@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from([0.2, 0.5, 0.8]),
    st.sets(st.integers(1, 7)).map(sorted),
)
@settings(max_examples=60, deadline=None)
def test_masks_pixel_by_pixel(seed, exclusive, threshold, known):
    rng = np.random.default_rng(seed)
    values = rng.random((7, 3, 4)).astype(np.float32)
    if exclusive:
        values /= 1.3 * values.sum(0)
        values[:, rng.random((3, 4)) < 0.4] *= 0.3
    artifact, mask = find_artifacts(values, threshold, exclusive, known)
    for y in range(3):
        for x in range(4):
            some, bits = expected_pixel(values[:, y, x], threshold, exclusive, known)
            assert artifact[y, x] == pytest.approx(some, abs=1e-6)
            if abs(some - threshold) > 1e-5:
                assert mask[y, x] == bits
    np.testing.assert_array_equal(mask != 0, artifact > np.float32(threshold))


@pytest.mark.parametrize("exclusive", [True, False])
def test_strips_do_not_show(monkeypatch, exclusive):
    values = np.random.default_rng(0).random((7, 37, 11)).astype(np.float32) / 3
    whole = find_artifacts(values, 0.3, exclusive, (1, 2, 5))
    monkeypatch.setattr(instances, "_STRIP", 30)  # two rows
    for a, b in zip(whole, find_artifacts(values, 0.3, exclusive, (1, 2, 5)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_sum_of_shares_stays_a_probability():
    values = np.full((7, 2, 2), np.float32(1 / 7) * np.float32(1.000001))
    artifact, _ = find_artifacts(values, 0.5, True, (1,))
    assert artifact.max() <= 1


def test_seven_planes_are_needed():
    with pytest.raises(ValueError, match="7, H, W"):
        find_artifacts(np.zeros((8, 3, 3), np.float32), 0.5, True, (1,))


# --- regions ---


masks = arrays.arrays(
    np.uint8,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.sampled_from([0, 0, 0, 1, 2, 4, 6, 128, 130]),
    fill=st.nothing(),
)


def maps_for(mask, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.random((7, *mask.shape), dtype=np.float32),
        rng.random(mask.shape, dtype=np.float32),
    )


def plane_of(mask, label):
    bit = 1 if label == UNCATEGORIZED else BY_LABEL[label].bit
    return (mask & bit) != 0


def flood(plane):
    """Sets of pixels, each connected over sides and corners; loops only."""
    left = {(int(y), int(x)) for y, x in np.argwhere(plane)}
    regions = []
    while left:
        queue, region = [left.pop()], set()
        while queue:
            y, x = queue.pop()
            region.add((y, x))
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if (y + dy, x + dx) in left:
                        left.remove((y + dy, x + dx))
                        queue.append((y + dy, x + dx))
        regions.append(frozenset(region))
    return regions


def facts(region, label, probability):
    """What an instance must say, in float64."""
    ys, xs = [y for y, _ in region], [x for _, x in region]
    mean = sum(float(probability[y, x]) for y, x in region) / len(region)
    box = (min(xs), min(ys), max(xs) + 1, max(ys) + 1)
    return label, box, len(region), round(mean, 9)


def filled(instance, shape):
    """Pixels of an instance by its contours: outline filled, holes cut, their rims kept."""
    canvas = np.zeros(shape, np.uint8)
    outer, *holes = instance.contours
    cv2.drawContours(canvas, [outer.reshape(-1, 1, 2)], -1, 1, cv2.FILLED)
    for hole in holes:
        inside = np.zeros(shape, np.uint8)
        cv2.drawContours(inside, [hole.reshape(-1, 1, 2)], -1, 1, cv2.FILLED)
        cv2.drawContours(inside, [hole.reshape(-1, 1, 2)], -1, 0, 1)
        canvas[inside == 1] = 0
    return {(int(y), int(x)) for y, x in np.argwhere(canvas)}


@given(masks, st.integers(0, 99), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_regions_are_those_of_a_flood_fill(mask, seed, min_area):
    probabilities, artifact = maps_for(mask, seed)
    found = find_instances(mask, probabilities, artifact, min_area)
    expected = []
    for label in (*BY_LABEL, UNCATEGORIZED):
        plane = artifact
        if label != UNCATEGORIZED:
            plane = probabilities[BY_LABEL[label].index - 1]
        regions = [r for r in flood(plane_of(mask, label)) if len(r) >= min_area]
        expected += [facts(region, label, plane) for region in regions]
    said = [(i.category, i.box, i.area, round(i.confidence, 9)) for i in found]
    assert sorted(said) == sorted(expected)


@given(masks)
@settings(max_examples=150, deadline=None)
def test_outlines_give_the_regions_back(mask):
    for instance in find_instances(mask, *maps_for(mask)):
        region = filled(instance, mask.shape)
        assert region in flood(plane_of(mask, instance.category))
        assert len(region) == instance.area
        assert all(c.dtype == np.int32 and c.ndim == 2 for c in instance.contours)


@given(masks)
@settings(max_examples=100, deadline=None)
def test_order(mask):
    order = [*BY_LABEL, UNCATEGORIZED]
    keys = [
        (order.index(i.category), -i.area, i.box[1], i.box[0])
        for i in find_instances(mask, *maps_for(mask))
    ]
    assert keys == sorted(keys)


def test_a_ring_around_a_dot():
    mask = np.zeros((9, 9), np.uint8)
    mask[1:8, 1:8] = 4
    mask[2:7, 2:7] = 0
    mask[4, 4] = 4
    ring, dot = find_instances(mask, *maps_for(mask))
    assert (ring.area, ring.box, len(ring.contours)) == (24, (1, 1, 8, 8), 2)
    assert (dot.area, dot.box, len(dot.contours)) == (1, (4, 4, 5, 5), 1)
    assert dot.contours[0].tolist() == [[4, 4]]


def test_corners_connect_and_categories_do_not():
    mask = np.array([[2, 0], [4, 2]], np.uint8)
    first, second = find_instances(mask, *maps_for(mask))
    assert (first.category, first.area) == ("low-level-texture", 2)
    assert (second.category, second.area) == ("low-level-edge_shape", 1)


def test_overlapping_categories_are_separate_regions():
    mask = np.full((3, 3), 2 | 128, np.uint8)
    labels = [i.category for i in find_instances(mask, *maps_for(mask))]
    assert labels == ["low-level-texture", "cognitive-level-physics"]


def test_confidence_never_leaves_its_range():
    mask = np.full((300, 300), 2, np.uint8)
    ones = np.ones((7, 300, 300), np.float32)
    assert find_instances(mask, ones, ones[0])[0].confidence == 1.0


def test_shapes_must_belong_together():
    mask = np.zeros((4, 5), np.uint8)
    probabilities, artifact = maps_for(mask)
    with pytest.raises(ValueError, match=r"\(7, 4, 5\)"):
        find_instances(mask, probabilities[:6], artifact)
    with pytest.raises(ValueError, match=r"\(5, 4\)"):
        find_instances(mask, probabilities, artifact.T)
    with pytest.raises(ValueError, match="min_area"):
        find_instances(mask, probabilities, artifact, 0)
