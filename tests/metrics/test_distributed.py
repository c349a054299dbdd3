"""Metrics of two processes equal those of one, however the images are dealt out."""

from __future__ import annotations

import pytest
import torch
from two_processes import run_both

from artifactnet.metrics.artifact_ratio import ArtifactRatioMetric
from artifactnet.metrics.authenticity import AuthenticityMetric
from artifactnet.metrics.category_presence import PresenceMetric, categories_present
from artifactnet.metrics.pixels import PixelMetric
from artifactnet.metrics.segmentation import SegmentationMetric
from artifactnet.types import Annotation

COUNT = 11


def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(COUNT) % 3 % 2
    names = [["a", "b"][i % 2] if label else "real" for i, label in enumerate(labels.tolist())]
    heatmap = torch.rand(COUNT, 4, 4, generator=generator)
    mask = (torch.rand(COUNT, 4, 4, generator=generator) > 0.6).byte() * labels.byte()[
        :, None, None
    ]
    mask = mask * torch.tensor([2, 4, 6, 128, 1], dtype=torch.uint8).repeat(3)[:COUNT, None, None]
    annotation = torch.where(labels == 1, int(Annotation.MASK), int(Annotation.CLEAN))
    return torch.rand(COUNT, generator=generator), labels, names, heatmap, mask, annotation


def results(indices):
    """All metrics after the images of ``indices``, one batch each."""
    probabilities, labels, names, heatmap, mask, annotation = data()
    predicted = mask | (heatmap > 0.8).byte() * 2
    authenticity, pixels = AuthenticityMetric(["a", "b"]), PixelMetric()
    segmentation = SegmentationMetric(["a", "b"])
    presence, ratio = PresenceMetric(), ArtifactRatioMetric()
    for i in indices:
        one = slice(i, i + 1)
        authenticity.update(probabilities[one], labels[one], names[one])
        known = (annotation[one], labels[one])
        pixels.update(heatmap[one], mask[one], *known)
        segmentation.update(predicted[one], mask[one], *known, names[one])
        presence.update(categories_present(predicted[one]), mask[one], *known)
        ratio.update(probabilities[one], mask[one], *known)
    return {
        "authenticity": authenticity.compute(),
        "pixels": pixels.compute(),
        "segmentation": segmentation.compute(),
        "presence": presence.compute(),
        "ratio": ratio.compute(),
    }


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("first", [5, COUNT])  # uneven; and nothing at all for the second
def test_two_processes_agree_with_one(tmp_path, first):
    both = run_both(results, (range(first), range(first, COUNT)), tmp_path)
    expected = results(range(COUNT))
    for generator in ("a", "b"):
        assert expected["segmentation"][generator]["category-agnostic"]["tp"] > 0
    for found in both:
        assert found == expected
