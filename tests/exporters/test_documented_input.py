"""The rule in docs/export.md is what a model's own preprocessing does."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.data.geometry import POLICIES, resample
from artifactnet.data.transforms import Preprocess
from artifactnet.inference.backends.exported import to_frames

DOCS = Path(__file__).parents[2] / "docs" / "export.md"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def to_input():
    """The function that the docs show."""
    section = DOCS.read_text(encoding="utf-8").partition("## From an image to the input")[2]
    names: dict = {}
    exec(re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0], names)
    return names["to_input"]


def noise(*size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


@settings(deadline=None, max_examples=60)
@given(
    old=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    new=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    policy=st.sampled_from(POLICIES),
)
def test_the_function_in_the_docs_is_the_preprocessing(to_input, old, new, policy):
    image = noise(*old)
    expected, _ = Preprocess(new, policy, MEAN, STD).image(image)
    frames = to_frames(expected[None], MEAN, STD)
    np.testing.assert_array_equal(to_input(image, new, policy, MEAN), frames[0])


def weights(old: int, new: int) -> np.ndarray:
    """(new, old): how much of each pixel is in each output pixel, as the docs put it in words."""
    table = np.zeros((new, old))
    for i in range(new):
        if new < old:
            first, last = i * old / new, (i + 1) * old / new
            covered = np.minimum(np.arange(old) + 1, last) - np.maximum(np.arange(old), first)
            table[i] = np.clip(covered, 0, None) * new / old
            continue
        at = (i + 0.5) * old / new - 0.5
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            x, a = abs(at - j), -0.75
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            table[i, min(max(j, 0), old - 1)] += near if x <= 1 else far if x < 2 else 0
    return table


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((40, 60), (16, 16)),  # both axes shrink
        ((9, 7), (32, 48)),  # both grow
        ((50, 11), (20, 33)),  # one of each
        ((12, 64), (40, 16)),
        ((31, 31), (31, 10)),  # one stays
        ((17, 24), (17, 25)),
        ((1, 1), (5, 3)),
    ],
)
def test_the_words_in_the_docs_describe_the_resampling(old, new):
    import cv2

    image = noise(*old)
    values = image.astype(np.float64)
    smaller = tuple(map(min, old, new))
    for (h0, w0), (h, w) in ((old, smaller), (smaller, new)):
        if (h0, w0) != (h, w):
            values = np.einsum("ih,hwc,jw->ijc", weights(h0, h), values, weights(w0, w))
            values = np.clip(np.round(values), 0, 255)
    found = resample(image, new, cv2.INTER_CUBIC)
    assert np.abs(found - values).max() <= 1  # OpenCV's weights have eleven bits
    assert np.abs(found - values).mean() < 0.1
