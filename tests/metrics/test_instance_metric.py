"""The instance metric against the reference, image by image and category by category."""

from __future__ import annotations

import json

import metric_reference as reference
import numpy as np
import pytest
import torch

from artifactnet.metrics.instance_metric import InstanceMetric, predicted_regions
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import Annotation

NONE, CLEAN, MASK = (int(state) for state in Annotation)
SIZE = (24, 20)
KEYS = ("tp", "fp", "fn", "invalid", "evaluated_images", "zero_prediction_images")


def blobs(rng):
    """A bit field with a few rectangles of any category."""
    mask = np.zeros(SIZE, dtype=np.uint8)
    for _ in range(rng.integers(0, 8)):
        top, left = rng.integers(0, SIZE)
        mask[top : top + rng.integers(1, 7), left : left + rng.integers(1, 7)] |= np.uint8(
            rng.choice([2, 4, 6, 128])
        )
    return mask


def planes(mask, category):
    return (mask // 2**category.index) % 2 == 1


def random_regions(rng, form, truth):
    """Regions by category; a category may be left out or empty."""
    if form == "regions":
        return predicted_regions(blobs(rng) | (truth if rng.random() < 0.3 else 0))
    found = {}
    for item in CATEGORIES:
        count = int(rng.integers(0, 4))
        if form == "masks":
            found[item.label] = [planes(blobs(rng) | truth, item) for _ in range(count)]
        else:
            size = np.tile(SIZE[::-1], 2 if form == "boxes" else 1)
            values = rng.uniform(-2, size, (count, len(size)))
            there = np.argwhere(planes(truth, item))[:, ::-1]
            if len(there) and rng.random() < 0.6:
                values[:, :2] = rng.choice(there, count) + rng.uniform(0, 1, (count, 2))
            if form == "boxes":
                values[:, 2:] = values[:, :2] + rng.uniform(0.5, 4, (count, 2))
            found[item.label] = values
        if rng.random() < 0.3:
            del found[item.label]
    return found


def reference_regions(form, regions):
    """Full-size masks (None where invalid) of the regions of one category."""
    if form == "boxes":
        return [reference.box_region(box, *SIZE) for box in regions]
    if form == "points":
        return [reference.point_region(point, *SIZE) for point in regions]
    if form == "masks":
        return [reference.mask_region(mask) for mask in regions]
    image = np.zeros(SIZE, dtype=int)
    rows, columns = regions.labels.shape
    image[regions.top : regions.top + rows, regions.left : regions.left + columns] = regions.labels
    return [image == k for k in range(1, regions.count + 1)]


@pytest.mark.parametrize("form", ["boxes", "points", "masks", "regions"])
@pytest.mark.parametrize("t", [0.5, 0.3])
def test_the_metric_equals_the_reference(form, t):
    rng = np.random.default_rng(3)
    metric = InstanceMetric(["a", "b", "c"], form, t)
    expected = {}
    for batch in (12, 12, 12, 12, 3):
        labels = rng.integers(0, 4, batch) > 0
        names = [rng.choice(["a", "b"]) if label else "real" for label in labels]
        annotation = np.where(labels, rng.choice([NONE, CLEAN, MASK, MASK, MASK], batch), CLEAN)
        truth = np.stack([blobs(rng) * (state == MASK) for state in annotation]).astype(np.uint8)
        predicted = [random_regions(rng, form, mask) for mask in truth]
        metric.update(
            torch.from_numpy(truth),
            predicted,
            torch.from_numpy(annotation),
            torch.from_numpy(labels).long(),
            names,
        )
        for mask, regions, state, label, name in zip(
            truth, predicted, annotation, labels, names, strict=True
        ):
            for row in ("all", name) if label and state != NONE else ():
                table = expected.setdefault(row, {c.label: [0] * 6 for c in CATEGORIES})
                for item in CATEGORIES:
                    given = regions.get(item.label, [])
                    made = reference_regions(form, given) if item.label in regions else []
                    truths = reference.instances(planes(mask, item))
                    counts = reference.counts(*reference.match(truths, made, t))
                    new = [*counts, 1, len(made) == 0]
                    table[item.label] = [a + b for a, b in zip(table[item.label], new, strict=True)]
    found = metric.compute()
    assert found.keys() == {"all", "a", "b"}
    assert sum(row[0] for row in expected["all"].values()) > 5
    for name, table in expected.items():
        for label, counts in table.items():
            row = found[name][label]
            assert [row[key] for key in KEYS] == counts
            scores = [row[f"{key}@{t}"] for key in ("P", "R", "F1")]
            np.testing.assert_allclose(scores, reference.ratios(*counts[:3]), rtol=0, atol=1e-12)
    assert found["all"]["unannotated_images"] == sum(
        found[name]["unannotated_images"] for name in ("a", "b")
    )
    assert found["all"]["unannotated_images"] > 0
    json.dumps(found, allow_nan=False)


def update(metric, truth, predicted, annotation=MASK, label=1, name="a"):
    metric.update(
        torch.tensor(truth, dtype=torch.uint8)[None],
        [predicted],
        torch.tensor([annotation]),
        torch.tensor([label]),
        [name],
    )


def test_artifacts_without_category_are_left_out():
    metric = InstanceMetric(["a"])
    update(metric, np.full((4, 4), 1), {CATEGORIES[0].label: [[0, 0, 2, 2]]})
    assert metric.compute().keys() == {"all"}
    assert not metric.counts.any()


def test_a_clean_fake_makes_every_region_a_false_one():
    metric = InstanceMetric(["a"])
    update(metric, np.zeros((4, 4)), {CATEGORIES[2].label: [[0, 0, 2, 2], [0, 0, 9, 9]]}, CLEAN)
    row = metric.compute()["a"][CATEGORIES[2].label]
    assert [row[key] for key in KEYS] == [0, 2, 0, 1, 1, 0]


def test_regions_of_a_bit_field():
    mask = np.zeros((6, 8), dtype=np.uint8)
    mask[0, 0], mask[1, 1], mask[4, 6], mask[5, 0] = 2, 2, 2 | 128, 1
    found = predicted_regions(mask)
    assert {label: regions.count for label, regions in found.items()} == {
        CATEGORIES[0].label: 2,  # two pixels that touch by a corner are one region
        CATEGORIES[6].label: 1,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"form": "polygons"}, "form must be one of"), ({"t": 1.2}, "must be in")],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        InstanceMetric(["a"], **arguments)


def test_wrong_batches_are_refused_and_change_nothing():
    metric = InstanceMetric(["a"])
    with pytest.raises(ValueError, match="unknown artifact categories.*'nose'"):
        update(metric, np.zeros((4, 4)), {"nose": []})
    with pytest.raises(ValueError, match="not among"):
        update(metric, np.zeros((4, 4)), {}, name="z")
    with pytest.raises(ValueError, match="per image"):
        update(metric, np.zeros(4), {})
    with pytest.raises(ValueError, match="per image"):
        metric.update(torch.zeros(1, 4, 4).byte(), [], torch.tensor([MASK]), torch.ones(1), ["a"])
    assert not metric.counts.any()
    assert not metric.unannotated.any()
