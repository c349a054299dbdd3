"""Pixel scores against loops."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.metrics.confusion import pixel_scores
from artifactnet.metrics.pixels import PixelCounts, PixelMetric, pixel_counts
from artifactnet.types import Annotation, ArtifactNetError

NONE, CLEAN, MASK = (int(state) for state in Annotation)


def bilinear(image, height, width):
    """Half-pixel centres, clamped, in float64 loops."""
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * image.shape[0] / height - 0.5, 0), image.shape[0] - 1)
            x = min(max((j + 0.5) * image.shape[1] / width - 0.5, 0), image.shape[1] - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
            upper, lower = (
                image[row, left] * (1 - (x - left)) + image[row, right] * (x - left)
                for row in (top, bottom)
            )
            out[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return out


def by_loops(heatmap, mask, annotation, labels, threshold, include_real):
    tp = fp = fn = images = zero = unknown = 0
    for b in range(len(mask)):
        if labels[b] == 0 and not include_real:
            continue
        if annotation[b] == NONE:
            unknown += 1
            continue
        grown = bilinear(heatmap[b].astype(np.float64), *mask.shape[1:])
        images, predicted = images + 1, 0
        for y in range(mask.shape[1]):
            for x in range(mask.shape[2]):
                found, true = grown[y, x] > threshold, mask[b, y, x] > 0
                predicted += found
                tp, fp = tp + (found and true), fp + (found and not true)
                fn += true and not found
        zero += predicted == 0
    return PixelCounts(tp, fp, fn, images, zero, unknown)


def random_batch(seed, batch=4, grid=(3, 4), factor=3):
    rng = np.random.default_rng(seed)
    # Odd multiples of 1/64 interpolate to values that are exact and away from the threshold.
    heatmap = ((rng.integers(0, 32, (batch, *grid)) * 2 + 1) / 64).astype(np.float32)
    heatmap[rng.random(batch) < 0.2] = 0
    labels = rng.integers(0, 2, batch)
    annotation = np.where(labels == 0, CLEAN, rng.integers(0, 3, batch))
    mask = rng.choice([0, 0, 2, 6, 128], (batch, grid[0] * factor, grid[1] * factor))
    mask[annotation != MASK] = 0
    return heatmap, mask.astype(np.uint8), annotation, labels


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10_000),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    factor=st.integers(1, 4),
    include_real=st.booleans(),
)
def test_counts_by_loops(seed, grid, factor, include_real):
    arrays = random_batch(seed, 4, grid, factor)
    got = pixel_counts(*map(torch.from_numpy, arrays), 0.4999, include_real)
    assert got == by_loops(*arrays, 0.4999, include_real)
    assert all(isinstance(count, int) for count in got)


def one(heatmap, mask, annotation=MASK, label=1, **options):
    return pixel_counts(
        torch.tensor([heatmap], dtype=torch.float32),
        torch.tensor([mask], dtype=torch.uint8),
        torch.tensor([annotation]),
        torch.tensor([label]),
        **{"threshold": 0.5, **options},
    )


def test_the_threshold_is_strict_and_categories_are_one():
    heatmap, mask = [[0.5, 0.51], [0.9, 0.0]], [[2, 128], [0, 6]]
    assert one(heatmap, mask) == PixelCounts(1, 1, 2, 1, 0, 0)
    assert one([[0.1, 0.2]], [[2, 0]]) == PixelCounts(0, 0, 1, 1, 1, 0)


@pytest.mark.parametrize(
    ("annotation", "label", "include_real", "expected"),
    [
        (MASK, 1, False, (1, 0, 0, 1, 0, 0)),
        (CLEAN, 1, False, (0, 1, 0, 1, 0, 0)),  # looked at and clean: a false pixel
        (NONE, 1, False, (0, 0, 0, 0, 0, 1)),  # nobody knows: left out, counted
        (CLEAN, 0, False, (0, 0, 0, 0, 0, 0)),
        (CLEAN, 0, True, (0, 1, 0, 1, 0, 0)),
    ],
)
def test_who_takes_part(annotation, label, include_real, expected):
    mask = [[4 if annotation == MASK else 0]]
    assert one([[1.0]], mask, annotation, label, include_real=include_real) == expected


def test_a_map_that_is_not_finite_is_an_error_where_it_counts():
    with pytest.raises(ArtifactNetError, match="not finite"):
        one([[math.nan]], [[2]])
    assert one([[math.nan]], [[0]], NONE).unannotated_images == 1


def test_shapes_that_do_not_match_are_refused():
    good = [torch.zeros(2, 3, 3), torch.zeros(2, 6, 6), torch.ones(2), torch.ones(2)]
    for position, bad in enumerate((torch.zeros(1, 3, 3), torch.zeros(2, 6), *[torch.ones(3)] * 2)):
        arguments = [*good[:position], bad, *good[position + 1 :]]
        with pytest.raises(ValueError, match="do not match"):
            pixel_counts(*arguments, 0.5)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_the_metric_sums_pixels_before_dividing():
    metric, rng = PixelMetric(["b", "real", "a", "never"], threshold=0.3), np.random.default_rng(0)
    parts = {"all": [], "a": [], "b": []}
    for seed in range(12):
        arrays = random_batch(seed)
        names = [rng.choice(["a", "b"]) if label else "real" for label in arrays[3]]
        metric.update(*map(torch.from_numpy, arrays), names)
        parts["all"].append(by_loops(*arrays, 0.3, False))
        for name in ("a", "b"):
            chosen = [i for i, own in enumerate(names) if own == name]
            parts[name].append(by_loops(*(array[chosen] for array in arrays), 0.3, False))
    found = metric.compute()
    assert list(found) == ["all", "b", "a"]
    for name, counts in parts.items():
        total = PixelCounts(*map(sum, zip(*counts, strict=True)))
        expected = {**pixel_scores(total.tp, total.fp, total.fn), **total._asdict()}
        assert found[name] == expected
        assert found[name]["evaluated_images"] > 0
        assert found[name]["unannotated_images"] > 0
    json.dumps(found, allow_nan=False)
    assert metric.counts.dtype == torch.int64  # loses no pixel in large sets
    metric.reset()
    assert not metric.counts.any()
    assert metric.compute() == PixelMetric([]).compute()


def test_a_generator_without_annotated_fakes_has_no_row():
    metric = PixelMetric(["a", "b"])
    batch = (torch.ones(2, 2, 2), torch.zeros(2, 2, 2, dtype=torch.uint8))
    state = torch.tensor([NONE, CLEAN]), torch.ones(2)
    metric.update(*batch, *state, ["a", "b"])
    assert list(metric.compute()) == ["all", "b"]
    assert metric.compute()["all"]["unannotated_images"] == 1
    with pytest.raises(ValueError, match=r"\['c'\] are not among"):
        metric.update(*batch, *state, ["a", "c"])
