"""Connected regions of a mask, against a flood fill and against their own outlines."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from artifactnet.inference.instances import UNCATEGORIZED, find_instances
from artifactnet.taxonomy import BY_LABEL, CATEGORIES

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


def test_every_bit_is_its_category():
    for category in CATEGORIES:
        mask = np.full((2, 3), category.bit, np.uint8)
        probabilities, artifact = maps_for(mask)
        (instance,) = find_instances(mask, probabilities, artifact)
        mean = probabilities[category.index - 1].astype(np.float64).mean()
        assert (instance.category, instance.box) == (category.label, (0, 0, 3, 2))
        assert instance.confidence == pytest.approx(mean, abs=1e-9)


def test_overlapping_categories_are_separate_regions():
    mask = np.full((3, 3), 2 | 128, np.uint8)
    labels = [i.category for i in find_instances(mask, *maps_for(mask))]
    assert labels == ["low-level-texture", "cognitive-level-physics"]


def test_confidence_never_leaves_its_range():
    mask = np.full((300, 300), 2, np.uint8)
    ones = np.ones((7, 300, 300), np.float32)
    assert find_instances(mask, ones, ones[0])[0].confidence == 1.0


def test_an_empty_mask_has_none():
    mask = np.zeros((4, 5), np.uint8)
    assert find_instances(mask, *maps_for(mask)) == ()


def test_thousands_of_regions_take_no_time_each():
    """Not a full-size picture per region: 16,384 of those would take minutes."""
    mask = np.zeros((1024, 1024), np.uint8)
    mask[::8, ::8] = 2
    maps = maps_for(mask)
    start = time.perf_counter()
    assert len(find_instances(mask, *maps)) == 128 * 128
    assert time.perf_counter() - start < 5


def test_shapes_must_belong_together():
    mask = np.zeros((4, 5), np.uint8)
    probabilities, artifact = maps_for(mask)
    with pytest.raises(ValueError, match=r"\(7, 4, 5\)"):
        find_instances(mask, probabilities[:6], artifact)
    with pytest.raises(ValueError, match=r"\(5, 4\)"):
        find_instances(mask, probabilities, artifact.T)
    with pytest.raises(ValueError, match="min_area"):
        find_instances(mask, probabilities, artifact, 0)
