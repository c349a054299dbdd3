"""Metrics of two processes equal those of one, however the images are distributed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from two_processes import run_both

from artifactnet.metrics.artifact_ratio import ArtifactRatioMetric
from artifactnet.metrics.authenticity import AuthenticityMetric
from artifactnet.metrics.category_presence import PresenceMetric, categories_present
from artifactnet.metrics.claims import ClaimMetric, Claims
from artifactnet.metrics.correlation import ScoreCorrelationMetric
from artifactnet.metrics.pixels import PixelMetric
from artifactnet.metrics.saliency import SaliencyMetric, TeacherAgreementMetric
from artifactnet.metrics.segmentation import SegmentationMetric
from artifactnet.metrics.text import TextMetric
from artifactnet.types import Annotation

COUNT = 11
SENTENCE = "the tail of a cat is bent and the paw has seven toes not five or four"


def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(COUNT) % 3 % 2
    names = [["a", "b"][i % 2] if label else "real" for i, label in enumerate(labels.tolist())]
    heatmap = torch.rand(COUNT, 4, 4, generator=generator)
    mask = (torch.rand(COUNT, 4, 4, generator=generator) > 0.6) * labels[:, None, None]
    bits = torch.tensor([2, 4, 6, 128, 1]).repeat(3)[:COUNT, None, None]
    annotation = torch.where(labels == 1, int(Annotation.MASK), int(Annotation.CLEAN))
    probabilities, scores = torch.rand(2, COUNT, generator=generator)
    return probabilities, scores, labels, names, heatmap, (mask * bits).byte(), annotation


def results(indices):
    """All metrics after the images of ``indices``, one batch each."""
    probabilities, scores, labels, names, heatmap, mask, annotation = data()
    predicted = mask | (heatmap > 0.8).byte() * 2
    target = heatmap.flip(0) * (mask != 0)
    words = SENTENCE.split()
    metrics = {
        "authenticity": AuthenticityMetric(["a", "b"]),
        "pixels": PixelMetric(["a", "b"]),
        "segmentation": SegmentationMetric(["a", "b"]),
        "presence": PresenceMetric(),
        "ratio": ArtifactRatioMetric(),
        "saliency": SaliencyMetric(),
        "teacher": TeacherAgreementMetric(),
        "scores": ScoreCorrelationMetric(),
        "text": TextMetric(),
        "claims": ClaimMetric(),
    }
    truth = Claims(("low-level-texture",), ("top",), False)
    for i in indices:
        one = slice(i, i + 1)
        state = (annotation[one], labels[one])
        batches = {
            "authenticity": (probabilities[one], labels[one], names[one]),
            "pixels": (heatmap[one], mask[one], *state, names[one]),
            "segmentation": (predicted[one], mask[one], *state, names[one]),
            "presence": (categories_present(predicted[one]), mask[one], *state),
            "ratio": (probabilities[one], mask[one], *state),
            "saliency": (heatmap[one], target[one], annotation[one]),
            "teacher": (heatmap[one], target[one], None, labels[one]),
            "scores": (scores[one], probabilities[one]),
            "text": (
                5 * scores[one],
                torch.tensor([i + 1]),
                [" ".join(words[: i + 4])],
                [" ".join(words[2 : i + 5])],
            ),
            "claims": (
                [replace(truth, places=truth.places * (i % 2))],
                [truth],
                [("top",)],
                [i > 3],
            ),
        }
        for name, arguments in batches.items():
            metrics[name].update(*arguments)
    return {name: metric.compute() for name, metric in metrics.items()}


def assert_close(found, expected):
    """Equal but for the rounding of sums in another order."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_close(found[key], expected[key])
    else:
        assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("first", [5, COUNT])  # uneven; and nothing at all for the second
def test_two_processes_agree_with_one(tmp_path, first):
    both = run_both(results, (range(first), range(first, COUNT)), tmp_path)
    expected = results(range(COUNT))
    for generator in ("a", "b"):
        assert expected["segmentation"][generator]["category-agnostic"]["tp"] > 0
        assert expected["pixels"][generator]["tp"] > 0
    assert expected["saliency"]["counts"]["CC"] > 1
    assert expected["teacher"]["fake"]["images"] > 1
    assert expected["text"]["BLEU"] > 0
    assert 0 < expected["claims"]["place"] < 1
    exact = ("authenticity", "pixels", "segmentation", "presence", "ratio", "claims")
    for found in both:
        assert all(found[name] == expected[name] for name in exact)
        assert_close(found, expected)
