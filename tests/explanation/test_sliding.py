"""Sliding-patch maps against loops over windows and pixels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_detectors import small_cnn, state_of
from tiny_models import tiny
from torch import nn

from artifactnet.data.transforms import Preprocess
from artifactnet.explanation.detector import OwnDetector
from artifactnet.explanation.sliding import sliding_map
from artifactnet.types import ArtifactNetError


class MeanDetector:
    """Its logit is a window's mean brightness; remembers how many windows came together."""

    def __init__(self, broken=()):
        self.module = self.net = nn.Linear(1, 1)
        self.preprocess = Preprocess((4, 4), "stretch", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        self.threshold, self.limits, self.warnings = 0.5, None, ()
        self.target_layer = self.reshape = None
        self.batches = []
        self._broken = broken

    def logits(self, images):
        start = sum(self.batches)
        self.batches.append(len(images))
        found = images.mean(dim=(1, 2, 3)) * 4
        for number in self._broken:
            if start <= number < start + len(images):
                found[number - start] = float("nan")
        return found


def starts(length, window, stride):
    """First pixels of the windows along one side, by trying them one after the other."""
    if length <= window:
        return [0]
    found, start = [], 0
    while start + window < length:
        found.append(start)
        start += stride
    return [*found, length - window]


def by_loops(detector, pixels, window, stride):
    height, width = pixels.shape[:2]
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for top in starts(height, window, stride):
        for left in starts(width, window, stride):
            cut = pixels[top : top + window, left : left + window]
            with torch.no_grad():
                logit = detector.logits(detector.preprocess.image(cut)[0][None])
            total[top : top + window, left : left + window] += 1 / (1 + math.exp(-float(logit)))
            count[top : top + window, left : left + window] += 1
    assert count.min() >= 1
    return total / count


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 25),
    width=st.integers(1, 25),
    window=st.integers(1, 30),
    overlap=st.integers(0, 29),
    batch_size=st.integers(1, 9),
)
def test_every_pixel_is_the_mean_over_the_windows_that_see_it(
    height, width, window, overlap, batch_size
):
    stride = max(1, window - overlap)
    detector, pixels = MeanDetector(), noise(height, width)
    found = sliding_map(detector, pixels, window, stride, batch_size)
    assert max(detector.batches) <= batch_size
    count = len(starts(height, window, stride)) * len(starts(width, window, stride))
    assert sum(detector.batches) == count
    assert found.dtype == np.float32
    assert 0 <= found.min() <= found.max() <= 1
    np.testing.assert_allclose(found, by_loops(detector, pixels, window, stride), atol=1e-6)


def test_the_model_is_left_as_found_in_any_grad_mode():
    detector, pixels = small_cnn(), noise(20, 30)
    detector.module.train()
    detector.net.fc.weight.grad = torch.ones_like(detector.net.fc.weight)
    before = state_of(detector.module)
    expected = sliding_map(detector, pixels, 12, 12)
    with torch.inference_mode():
        np.testing.assert_array_equal(sliding_map(detector, pixels, 12, 12), expected)
    assert state_of(detector.module) == before


def test_an_artifactnet_predicts_each_window_as_an_image():
    detector, pixels = OwnDetector(tiny()), noise(64, 40)
    found = sliding_map(detector, pixels, 40, 24)
    np.testing.assert_allclose(found, by_loops(detector, pixels, 40, 24), atol=1e-6)
    assert found[0, 0] != found[-1, 0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0}, "window.*0"),
        ({"stride": -3}, "stride.*-3"),
        ({"batch_size": 0}, "batch_size.*0"),
        ({"window": 10, "stride": 11}, "stride of 11"),
    ],
)
def test_options_out_of_range_are_named(options, words):
    with pytest.raises(ArtifactNetError, match=words):
        sliding_map(MeanDetector(), noise(20, 20), **options)


def test_an_answer_that_is_not_a_number_names_its_window():
    with pytest.raises(ArtifactNetError, match="row 10, column 20"):
        sliding_map(MeanDetector(broken=[5]), noise(20, 30), 10, 10, batch_size=4)
