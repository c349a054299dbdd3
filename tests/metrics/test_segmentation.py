"""Pixel counts per category against loops, and the metric that adds them up."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_reference import draw, random_polygons, ratios

from artifactnet.data.masks import rasterize
from artifactnet.metrics.confusion import pixel_scores
from artifactnet.metrics.segmentation import AGNOSTIC, ROWS, SegmentationMetric, category_counts
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import Annotation

NONE, CLEAN, MASK = (int(state) for state in Annotation)
FIELDS = [0, 0, 0, 1, 2, 3, 6, 64, 128, 130, 254, 255]


def by_loops(predicted, truth):
    """(B, 8, 3) by looking at one pixel and one category at a time."""
    counts = np.zeros((len(truth), 8, 3), dtype=np.int64)
    for b in range(len(truth)):
        for p, t in zip(predicted[b].ravel().tolist(), truth[b].ravel().tolist(), strict=True):
            for row in range(8):
                found = p > 0 if row == 0 else p // 2**row % 2 == 1
                true = t > 0 if row == 0 else t // 2**row % 2 == 1
                counts[b, row] += (found and true, found and not true, true and not found)
    return counts


@pytest.mark.parametrize("block", range(10))
def test_a_thousand_images_of_random_polygons_equal_the_reference(block):
    """Drawn by the package into bit fields, and by the benchmark's rule one category at a time."""
    for seed in range(100 * block, 100 * block + 100):
        rng = np.random.default_rng(seed)
        height, width = (int(side) for side in rng.integers(5, 60, 2))
        sides = []
        for _ in range(2):  # annotation and prediction, either may be empty
            drawn = {c.label: random_polygons(rng, height, width) for c in CATEGORIES}
            kept = {label: p for label, p in drawn.items() if rng.random() < 0.4}
            labels = [
                {"label": name, "points": points.tolist()}
                for name, polygons in kept.items()
                for points in polygons
            ]
            bits = rasterize(labels, height, width, f"case {seed}")
            planes = [draw(kept.get(c.label, []), height, width) > 0 for c in CATEGORIES]
            sides.append((torch.from_numpy(bits)[None], [np.any(planes, axis=0), *planes]))
        (truth, true_planes), (predicted, found_planes) = sides
        counts = category_counts(predicted, truth)[0].tolist()
        for row, true, found in zip(counts, true_planes, found_planes, strict=True):
            tp, fp, fn = (int(m.sum()) for m in (true & found, found & ~true, true & ~found))
            assert row == [tp, fp, fn]
            p, r, f1 = ratios(tp, fp, fn)
            scores = pixel_scores(tp, fp, fn)
            expected = [tp / (tp + fp + fn) if tp + fp + fn else 0.0, p, r, f1]
            assert list(scores.values()) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(0, 3), st.integers(1, 7), st.integers(1, 7)),
)
def test_counts_by_loops(seed, shape):
    rng = np.random.default_rng(seed)
    predicted, truth = (rng.choice(FIELDS, shape).astype(np.uint8) for _ in range(2))
    found = category_counts(torch.from_numpy(predicted), torch.from_numpy(truth))
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found.numpy(), by_loops(predicted, truth))


def test_every_pair_of_bytes():
    values = torch.arange(256, dtype=torch.uint8)
    predicted, truth = (grid[None] for grid in torch.meshgrid(values, values, indexing="ij"))
    found = category_counts(predicted, truth)[0]
    # A quarter of all pairs share a given bit; any bit is in all pairs of non-zero values.
    assert found[1:].tolist() == [[128 * 128] * 3] * 7
    assert found[0].tolist() == [255 * 255, 255, 255]


@pytest.mark.parametrize(
    ("predicted", "truth"),
    [
        (torch.zeros(1, 2, 2).byte(), torch.zeros(1, 2, 3).byte()),
        (torch.zeros(2, 2).byte(), torch.zeros(2, 2).byte()),
        (torch.zeros(1, 2, 2), torch.zeros(1, 2, 2).byte()),
        (torch.zeros(1, 2, 2).byte(), torch.zeros(1, 2, 2, dtype=torch.int64)),
    ],
)
def test_wrong_masks_are_refused(predicted, truth):
    with pytest.raises(ValueError, match="one shape|uint8"):
        category_counts(predicted, truth)


def random_batch(rng, batch):
    labels = rng.integers(0, 2, batch)
    names = [rng.choice(["a", "b"]) if label else "real" for label in labels]
    annotation = np.where(labels == 0, CLEAN, rng.integers(0, 3, batch))
    truth = rng.choice(FIELDS, (batch, 5, 4)).astype(np.uint8)
    truth[rng.random(batch) < 0.3] &= 1  # artifacts of no known category
    truth[annotation != MASK] = 0
    predicted = rng.choice(FIELDS, (batch, 5, 4)).astype(np.uint8)
    predicted[rng.random(batch) < 0.3] = 0
    return predicted, truth, annotation, labels, names


def reference_table(images):
    """Scores of a list of (predicted, truth, annotation), summed over pixels by loops."""
    used = [(p, t) for p, t, state in images if state != NONE]
    table = {}
    for row, name in enumerate(ROWS):
        counts = np.zeros(5, dtype=np.int64)
        for p, t in used:
            if row and set(np.unique(t)) in ({1}, {0, 1}):
                continue
            own = by_loops(p[None], t[None])[0, row]
            counts += [*own, 1, own[0] + own[1] == 0]
        tp, fp, fn, evaluated, zero = counts.tolist()
        precision, recall, f1 = ratios(tp, fp, fn)
        table[name] = {
            "IoU": tp / (tp + fp + fn) if tp + fp + fn else 0.0,
            "PixP": precision,
            "PixR": recall,
            "PixF1": f1,
            "tp": tp,
            "fp": fp,
            "fn": fn,
            "evaluated_images": evaluated,
            "zero_prediction_images": zero,
        }
    images_of_all = {k: table[AGNOSTIC][k] for k in ("evaluated_images", "zero_prediction_images")}
    return {**table, **images_of_all, "unannotated_images": len(images) - len(used)}


def assert_tables(tables, expected):
    assert tables.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_tables(tables[key], value)
        else:
            assert tables[key] == (
                pytest.approx(value, abs=1e-12) if isinstance(value, float) else value
            ), key


@pytest.mark.parametrize("seed", range(8))
def test_the_metric_equals_loops_over_all_images(seed):
    rng = np.random.default_rng(seed)
    metric, images = SegmentationMetric(["a", "b", "real"]), []
    for batch in (4, 4, 3, 1):  # the last batches are partial
        arrays = random_batch(rng, batch)
        metric.update(*map(torch.from_numpy, arrays[:4]), arrays[4])
        images += [
            (name, (p, t, state))
            for p, t, state, label, name in zip(*arrays, strict=True)
            if label == 1
        ]
    assert metric.counts.dtype == torch.int64  # loses no pixel in large sets
    found = metric.compute()
    names = {name for name, _ in images}
    assert found.keys() == {"all", *names}
    assert_tables(found["all"], reference_table([image for _, image in images]))
    for name in names:
        assert_tables(found[name], reference_table([i for other, i in images if other == name]))
    json.dumps(found, allow_nan=False)


def one(predicted, truth, annotation=MASK, label=1):
    metric = SegmentationMetric(["a"])
    metric.update(
        torch.tensor([[predicted]], dtype=torch.uint8),
        torch.tensor([[truth]], dtype=torch.uint8),
        torch.tensor([annotation]),
        torch.tensor([label]),
        ["a" if label else "real"],
    )
    return metric.compute()


def counts_of(table, row):
    return tuple(table["all"][row][key] for key in ("tp", "fp", "fn", "evaluated_images"))


@pytest.mark.parametrize(
    ("annotation", "label", "expected"),
    [
        (MASK, 1, (1, 1, 1, 1)),
        (CLEAN, 1, (0, 2, 0, 1)),  # looked at and clean: false pixels
        (NONE, 1, (0, 0, 0, 0)),
        (CLEAN, 0, (0, 0, 0, 0)),
    ],
)
def test_who_takes_part(annotation, label, expected):
    found = one([2, 2, 0], [2, 0, 2] if annotation == MASK else [0, 0, 0], annotation, label)
    assert counts_of(found, AGNOSTIC) == counts_of(found, CATEGORIES[0].label) == expected
    assert found["all"]["unannotated_images"] == (annotation == NONE)
    assert ("a" in found) == bool(label)


def test_artifacts_without_category_count_as_artifacts_only():
    found = one([2, 1, 4], [1, 1, 0])
    assert counts_of(found, AGNOSTIC) == (2, 1, 0, 1)
    for item in CATEGORIES:
        assert counts_of(found, item.label) == (0, 0, 0, 0)
    mixed = one([2, 1, 4], [1, 2, 0])  # one category is known, so all are evaluated
    assert counts_of(mixed, CATEGORIES[0].label) == (0, 1, 1, 1)


def test_wrong_batches_are_refused():
    metric, mask = SegmentationMetric(["a"]), torch.zeros(2, 3, 3).byte()
    state, labels = torch.full((2,), MASK), torch.ones(2)
    with pytest.raises(ValueError, match="not among"):
        metric.update(mask, mask, state, labels, ["a", "c"])
    with pytest.raises(ValueError, match="zip"):
        metric.update(mask, mask, state, labels, ["a"])
    with pytest.raises(ValueError, match="annotation state"):
        metric.update(mask, mask, state[:1], labels, ["a", "a"])
    with pytest.raises(ValueError, match="2 masks"):
        metric.update(mask[:1], mask, state, labels, ["a", "a"])
    assert not metric.counts.any()
