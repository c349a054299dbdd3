"""Perceptual Artifact Ratio and accuracy by bin, against loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.metrics.artifact_ratio import (
    ArtifactRatioMetric,
    accuracy_by_ratio,
    artifact_ratio,
    ratio_bins,
)
from artifactnet.types import Annotation

NONE, CLEAN, MASK = (int(state) for state in Annotation)


def test_share_of_pixels_inside_any_artifact():
    mask = torch.zeros(4, 4, 5, dtype=torch.uint8)
    mask[1, 0, 0], mask[1, 1, 1], mask[2, :2] = 2 | 128, 1, 6
    mask[3] = 255
    found = artifact_ratio(mask)
    assert found.dtype == torch.float64
    assert found.tolist() == [0.0, 0.1, 0.5, 1.0]


def bin_by_loops(ratio, edges):
    if ratio == 0:
        return 0
    for index, edge in enumerate(edges):
        if ratio <= edge:
            return index + 1
    return len(edges) + 1


share = st.one_of(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 1e-12]), st.floats(0, 1))


@given(
    images=st.lists(st.tuples(share, st.booleans()), max_size=30),
    edges=st.sampled_from([(), (0.1,), (0.1, 0.25, 0.5)]),
)
def test_table_by_loops(images, edges):
    ratios = torch.tensor([ratio for ratio, _ in images], dtype=torch.float64)
    correct = torch.tensor([right for _, right in images], dtype=torch.bool)
    table = accuracy_by_ratio(ratios, correct, edges)
    assert len(table) == len(edges) + 2
    assert [row["above"] for row in table] == [0, 0, *edges]
    assert [row["up_to"] for row in table] == [0, *edges, 1]
    for index, row in enumerate(table):
        inside = [right for ratio, right in images if bin_by_loops(ratio, edges) == index]
        assert (row["images"], row["correct"]) == (len(inside), sum(inside))
        assert row["accuracy"] == (sum(inside) / len(inside) if inside else 0.0)
    assert sum(row["images"] for row in table) == len(images)


def test_limits_belong_to_the_bin_below():
    ratios = torch.tensor([0.0, 0.1, 0.1000001, 1.0], dtype=torch.float64)
    assert ratio_bins(ratios, (0.1, 0.2)).tolist() == [0, 1, 2, 3]


def test_wrong_input_is_refused():
    for edges in ((0.0,), (1.0,), (0.2, 0.1), (0.1, 0.1), (-0.5,), (float("nan"),)):
        for call in (ArtifactRatioMetric, lambda edges: ratio_bins(torch.zeros(1), edges)):
            with pytest.raises(ValueError, match="rise strictly"):
                call(edges)
    for ratio in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="ratios must be"):
            ratio_bins(torch.tensor([ratio]))
    with pytest.raises(ValueError, match="one answer per ratio"):
        accuracy_by_ratio(torch.zeros(2), torch.zeros(3).bool())


def test_the_metric_adds_up_annotated_fakes():
    rng = np.random.default_rng(0)
    metric, images = ArtifactRatioMetric((0.2, 0.5), threshold=0.7), []
    for batch in (5, 5, 2):
        labels = torch.from_numpy(rng.integers(0, 2, batch))
        annotation = torch.where(labels == 1, torch.from_numpy(rng.integers(0, 3, batch)), CLEAN)
        truth = torch.from_numpy(rng.choice([0, 0, 2, 1], (batch, 3, 3)).astype(np.uint8))
        truth[annotation != MASK] = 0
        probabilities = torch.from_numpy(rng.choice([0.1, 0.7, 0.9], batch))
        metric.update(probabilities, truth, annotation, labels)
        images += [
            (float((truth[i] > 0).sum()) / 9, bool(probabilities[i] >= 0.7))
            for i in range(batch)
            if labels[i] == 1 and annotation[i] != NONE
        ]
    table = metric.compute()
    for index, row in enumerate(table):
        inside = [right for ratio, right in images if bin_by_loops(ratio, (0.2, 0.5)) == index]
        assert (row["images"], row["correct"]) == (len(inside), sum(inside))
    assert sum(row["images"] for row in table) == len(images) > 2
    metric.reset()
    assert not metric.counts.any()
