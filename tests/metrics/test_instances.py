"""Instances and matching against full-size masks and loops."""

import math
from itertools import pairwise

import cv2
import metric_reference as reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from artifactnet.metrics.confusion import instance_scores
from artifactnet.metrics.instances import match_boxes, match_masks, match_points, match_regions
from artifactnet.metrics.regions import instance_labels, polygon_instances, region_labels

THRESHOLDS = (0.0, 0.25, 0.5, 0.5, 0.5, 0.9, 1.0)


def benchmark_points(polygon, height, width):
    points = np.array(polygon, dtype=np.int32)
    return np.clip(points, 0, (width - 1, height - 1)).astype(np.int32)


def random_boxes(rng, height, width, polygons):
    boxes = []
    for _ in range(rng.integers(0, 9)):
        if polygons and rng.random() < 0.5:  # around a polygon, so that something matches
            points = np.clip(polygons[rng.integers(len(polygons))], 0, (width, height))
            box = np.concatenate([points.min(axis=0), points.max(axis=0)])
            box += rng.choice([0, 0, 1], 4) * rng.normal(0, 2, 4)
        else:
            box = rng.uniform(-3, (width + 3, height + 3, width + 3, height + 3))
        if rng.random() < 0.5:
            box[[0, 2]], box[[1, 3]] = sorted(box[[0, 2]]), sorted(box[[1, 3]])
        if rng.random() < 0.5:
            box = np.round(box)
        if rng.random() < 0.05:
            box[rng.integers(4)] = rng.choice([math.nan, math.inf, -math.inf, 1e30])
        boxes.append(box)
    return boxes


def random_masks(rng, height, width, truth):
    masks = []
    for _ in range(rng.integers(0, 5)):
        blob = reference.draw(reference.random_polygons(rng, height, width), height, width)
        masks.append((truth & np.roll(truth, 1, axis=0) if rng.random() < 0.4 else blob) > 0)
    return masks


def full_size(found):
    """The label map's regions as full-size masks, in an order that does not depend on labels."""
    image = np.zeros((found.height, found.width), dtype=np.int64)
    rows, columns = found.labels.shape
    image[found.top : found.top + rows, found.left : found.left + columns] = found.labels
    return in_order([image == k for k in range(1, found.count + 1)])


def in_order(masks):
    return sorted(masks, key=lambda mask: mask.tobytes())


def assert_regions(found, expected):
    assert found.count == len(expected)
    for mine, theirs in zip(full_size(found), in_order(expected), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert found.spans.shape == (found.count, 4)
    for label, (x0, y0, x1, y1) in enumerate(found.spans, start=1):
        inside = np.zeros(found.labels.shape, dtype=bool)
        inside[y0:y1, x0:x1] = True
        assert not (found.labels == label)[~inside].any()


def cases(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(size) for size in rng.integers(1, 49, 2))
    polygons = reference.random_polygons(rng, height, width)
    truth = reference.draw(polygons, height, width)
    return rng, height, width, polygons, truth


@pytest.mark.parametrize("block", range(10))
def test_a_thousand_random_cases_equal_the_reference(block):
    """Instances, counts of boxes, points and masks, and ratios, from polygons and from masks."""
    seen = np.zeros(4, dtype=int)
    for seed in range(100 * block, 100 * block + 100):
        rng, height, width, polygons, truth = cases(seed)
        expected = reference.instances(truth)
        points = [benchmark_points(polygon, height, width) for polygon in polygons]
        drawn, masked = polygon_instances(points, height, width), instance_labels(truth)
        for found in (drawn, masked):
            assert_regions(found, expected)
        t = float(rng.choice(THRESHOLDS))
        boxes = random_boxes(rng, height, width, polygons)
        dots = rng.uniform(-2, (width + 2, height + 2), (rng.integers(0, 6), 2)).tolist()
        masks = random_masks(rng, height, width, truth)
        for match, predictions, regions in (
            (match_boxes, boxes, [reference.box_region(b, height, width) for b in boxes]),
            (match_points, dots, [reference.point_region(p, height, width) for p in dots]),
            (match_masks, masks, [reference.mask_region(m) for m in masks]),
        ):
            flags = reference.match(expected, regions, t)
            counts = reference.counts(*flags)
            for instances in (drawn, masked):
                matches = match(instances, predictions, t)
                assert matches.predicted.tolist() == flags[0], (seed, match)
                assert matches.invalid.tolist() == flags[2], (seed, match)
                assert matches.counts == counts, (seed, match)
            ratios = list(instance_scores(*counts[:3], t).values())
            np.testing.assert_allclose(ratios, reference.ratios(*counts[:3]), rtol=0, atol=1e-12)
            seen += counts
    assert (seen > 50).all()  # every kind of outcome was really there


@settings(deadline=None, max_examples=200)
@given(
    truth=hnp.arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24))),
    seed=st.integers(0, 1000),
    t=st.sampled_from(THRESHOLDS),
)
def test_label_maps_as_predictions_equal_the_reference(truth, seed, t):
    rng = np.random.default_rng(seed)
    truth = truth & (rng.random(truth.shape) < 0.15)
    predicted = (rng.random(truth.shape) < 0.3) & (truth | (rng.random(truth.shape) < 0.3))
    count, numbers = cv2.connectedComponents(predicted.astype(np.uint8), connectivity=8)
    regions = [numbers == k for k in range(1, count)]
    assert_regions(region_labels(predicted), regions)
    instances = reference.instances(truth)
    assert_regions(instance_labels(truth), instances)
    flags = reference.match(instances, regions, t)
    matches = match_regions(instance_labels(truth), region_labels(predicted), t)
    assert matches.counts == reference.counts(*flags)
    assert matches.counts == match_masks(instance_labels(truth), regions, t).counts


@pytest.mark.parametrize("gap", range(9))
def test_polygons_join_up_to_four_pixels_apart(gap):
    first = square(3, 12, 3)
    for shift in range(-9, 10):  # straight, and by the corners
        found = polygon_instances([first, first + np.array([3 + gap, shift], np.int32)], 40, 40)
        between = max(gap, abs(shift) - 3)  # pixels that belong to neither
        assert found.count == (1 if between <= 4 else 2), shift


def square(x, y, size):
    return np.array(
        [[x, y], [x + size - 1, y], [x + size - 1, y + size - 1], [x, y + size - 1]], dtype=np.int32
    )


def test_the_share_must_exceed_the_threshold_and_flags_are_not_pairs():
    truth = polygon_instances([square(4, 4, 4)], 16, 16)
    half = [[2, 4, 6, 8]]  # two of its four columns lie on the instance
    assert match_boxes(truth, half, 0.5).counts == (0, 1, 1, 0)
    assert match_boxes(truth, half, 0.49).counts == (1, 0, 0, 0)
    assert match_boxes(truth, [[4, 4, 8, 8]], 1.0).counts == (0, 1, 1, 0)
    truth = polygon_instances([square(0, 0, 4), square(12, 0, 4)], 16, 16)
    inside = [[0, 0, 2, 2], [1, 1, 3, 3], [0, 0, 4, 4]]
    assert match_boxes(truth, inside).counts == (1, 0, 1, 0)  # three boxes, one instance
    assert match_boxes(truth, [[0, 0, 16, 4]], 0.2).counts == (2, 0, 0, 0)  # a quarter on each


@pytest.mark.parametrize(
    ("box", "invalid"),
    [
        ([0, 0, 10, 8], False),  # the whole image
        ([0.9, 0.9, 1.0, 8], False),  # cut to column 0
        ([1.2, 1, 1.9, 3], True),  # empty after the cut
        ([3, 1, 3, 4], True),
        ([5, 1, 3, 4], True),  # limits the wrong way round
        ([-0.5, 0, 4, 4], True),  # would be cut to 0, but the limit as given is outside
        ([0, 0, 10.5, 4], True),
        ([8, 2, 14, 4], True),  # partly outside
        ([20, 20, 30, 30], True),
        ([0, 0, math.nan, 4], True),
        ([0, 0, math.inf, 4], True),
    ],
)
@pytest.mark.parametrize("polygons", [[], [square(0, 0, 6)]])
def test_invalid_boxes_are_unmatched_and_counted_once(box, invalid, polygons):
    found = match_boxes(polygon_instances(polygons, 8, 10), [box])
    assert found.invalid.tolist() == [invalid]
    if invalid:
        assert found.counts == (0, 1, len(polygons), 1)  # with and without instances


def test_nothing_predicted_and_nothing_there():
    nothing = polygon_instances([], 6, 5)
    assert nothing.count == instance_labels(np.zeros((6, 5), dtype=np.uint8)).count == 0
    something = polygon_instances([square(0, 0, 3)], 6, 5)
    for match in (match_boxes, match_points, match_masks):
        assert match(nothing, []).counts == (0, 0, 0, 0)
        assert match(something, []).counts == (0, 0, 1, 0)
    empty = region_labels(np.zeros((6, 5), dtype=bool))
    assert match_regions(something, empty).counts == (0, 0, 1, 0)
    assert match_regions(empty, something).counts == (0, 1, 0, 0)
    assert match_masks(something, [np.zeros((6, 5), dtype=bool)]).counts == (0, 1, 1, 1)
    assert instance_scores(0, 0, 0) == {"P@0.5": 0.0, "R@0.5": 0.0, "F1@0.5": 0.0}


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_a_higher_threshold_never_matches_more(seed):
    rng, height, width, polygons, truth = cases(seed)
    boxes = random_boxes(rng, height, width, polygons)
    found = [match_boxes(instance_labels(truth), boxes, t / 8).counts for t in range(9)]
    for low, high in pairwise(found):
        assert high.tp <= low.tp
        assert high.fp >= low.fp
        assert high.invalid == low.invalid
    assert all(counts.tp + counts.fn == found[0].tp + found[0].fn for counts in found)


@pytest.mark.parametrize(
    "call",
    [
        lambda truth: match_boxes(truth, [[0, 0, 1]]),
        lambda truth: match_boxes(truth, [0, 0, 1, 1]),
        lambda truth: match_points(truth, [[0, 0, 1]]),
        lambda truth: match_boxes(truth, [], 1.5),
        lambda truth: match_points(truth, [], -0.1),
        lambda truth: match_masks(truth, [], math.nan),
        lambda truth: match_masks(truth, [np.zeros((3, 3), dtype=bool)]),
        lambda truth: match_masks(truth, [np.zeros((8, 8), dtype=np.float32)]),
        lambda truth: match_regions(truth, region_labels(np.zeros((3, 3), dtype=bool))),
        lambda truth: instance_labels(np.zeros((2, 3, 3), dtype=np.uint8)),
        lambda truth: instance_labels(np.zeros((3, 3), dtype=np.int64)),
        lambda truth: polygon_instances([np.array([[0, 0], [8, 0], [0, 3]], np.int32)], 8, 8),
        lambda truth: polygon_instances([np.array([[0, -1], [5, 0], [0, 3]], np.int32)], 8, 8),
        lambda truth: polygon_instances([np.zeros((0, 2), np.int32)], 8, 8),
    ],
)
def test_wrong_arguments_are_refused(call):
    with pytest.raises(ValueError, match="must be|has shape|image of|no points"):
        call(polygon_instances([square(0, 0, 3)], 8, 8))


def test_large_images_equal_the_reference():
    """Six polygons and twenty boxes of one category on 1024 x 1024."""
    rng = np.random.default_rng(0)
    for _ in range(3):
        angles = np.sort(rng.uniform(0, 2 * np.pi, (6, 12)))
        shape = np.stack([np.cos(angles), np.sin(angles)], axis=2) * rng.uniform(20, 150, (6, 1, 1))
        polygons = list(shape + rng.uniform(0, 1024, (6, 1, 2)))
        corners = np.sort(rng.uniform(0, 1024, (20, 2, 2)), axis=1)
        boxes = corners.reshape(20, 4).tolist()
        truths = reference.instances(reference.draw(polygons, 1024, 1024))
        regions = [reference.box_region(box, 1024, 1024) for box in boxes]
        expected = reference.counts(*reference.match(truths, regions, 0.5))
        points = [benchmark_points(polygon, 1024, 1024) for polygon in polygons]
        assert match_boxes(polygon_instances(points, 1024, 1024), boxes).counts == expected
