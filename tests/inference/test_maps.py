"""From logits to maps at the original size, against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.data.geometry import fit_geometry
from artifactnet.inference import instances
from artifactnet.types import ArtifactNetError


def bilinear(plane, height, width):
    """Half-pixel centres, clamped at the borders (align_corners=False), loops in float64."""
    h, w = len(plane), len(plane[0])
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            sy = max((y + 0.5) * h / height - 0.5, 0.0)
            sx = max((x + 0.5) * w / width - 0.5, 0.0)
            y0, x0 = min(int(sy), h - 1), min(int(sx), w - 1)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            fy, fx = sy - y0, sx - x0
            top = plane[y0][x0] * (1 - fx) + plane[y0][x1] * fx
            bottom = plane[y1][x0] * (1 - fx) + plane[y1][x1] * fx
            out[y, x] = top * (1 - fy) + bottom * fy
    return out


@pytest.mark.parametrize("channels", [7, 8])
def test_logits_are_interpolated_then_squashed(channels):
    logits = torch.randn(channels, 3, 5, generator=torch.Generator().manual_seed(1)) * 4
    found = instances.frame_probabilities(logits, (9, 12))
    full = np.stack([bilinear(plane, 9, 12) for plane in logits.double().numpy()])
    if channels == 8:
        odds = np.exp(full - full.max(0))
        expected = (odds / odds.sum(0))[1:]
    else:
        expected = 1 / (1 + np.exp(-full))
    assert found.shape == (7, 9, 12)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_map_that_is_no_number_is_not_believed(value):
    logits = torch.zeros(8, 4, 4)
    logits[2, 1, 1] = value
    with pytest.raises(ArtifactNetError, match="not a number"):
        instances.frame_probabilities(logits, (8, 8))


@pytest.mark.parametrize("policy", ["stretch", "crop", "pad"])
def test_planes_come_back_in_their_order(policy):
    geometry = fit_geometry((30, 50), (16, 16), policy)
    planes = np.stack([np.full((16, 16), (k + 1) / 8, np.float32) for k in range(7)])
    restored = instances.restore_planes(planes, geometry)
    assert restored.shape == (7, 30, 50)
    seen = np.zeros((30, 50), bool)
    seen[geometry.source.slices] = True
    for k, plane in enumerate(restored):
        assert (plane[seen] == np.float32((k + 1) / 8)).all()
        assert (plane[~seen] == 0).all()
    assert seen.all() == (policy != "crop")


def expected_pixel(values, threshold, exclusive, known):
    """Any-artifact probability and bits of one pixel, in plain Python."""
    some = min(float(np.float32(values).sum()), 1.0) if exclusive else float(max(values))
    if not some > threshold:
        return some, 0
    if exclusive:
        best = max(known, key=lambda c: (values[c - 1], -c), default=None)
        return some, 1 << best if best else 1
    bits = sum(1 << c for c in known if values[c - 1] > threshold)
    return some, bits or 1


@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from([0.2, 0.5, 0.8]),
    st.sets(st.integers(1, 7)).map(sorted),
)
@settings(max_examples=60, deadline=None)
def test_masks_pixel_by_pixel(seed, exclusive, threshold, known):
    rng = np.random.default_rng(seed)
    values = rng.random((7, 3, 4)).astype(np.float32)
    if exclusive:
        values /= 1.3 * values.sum(0)
        values[:, rng.random((3, 4)) < 0.4] *= 0.3
    artifact, mask = instances.find_artifacts(values, threshold, exclusive, known)
    for y in range(3):
        for x in range(4):
            some, bits = expected_pixel(values[:, y, x], threshold, exclusive, known)
            assert artifact[y, x] == pytest.approx(some, abs=1e-6)
            if abs(some - threshold) > 1e-5:
                assert mask[y, x] == bits
    np.testing.assert_array_equal(mask != 0, artifact > np.float32(threshold))


@pytest.mark.parametrize("exclusive", [True, False])
def test_strips_do_not_show(monkeypatch, exclusive):
    values = np.random.default_rng(0).random((7, 37, 11)).astype(np.float32) / 3
    whole = instances.find_artifacts(values, 0.3, exclusive, (1, 2, 5))
    monkeypatch.setattr(instances, "_STRIP", 30)  # two rows
    for a, b in zip(
        whole, instances.find_artifacts(values, 0.3, exclusive, (1, 2, 5)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_sum_of_shares_stays_a_probability():
    values = np.full((7, 2, 2), np.float32(1 / 7) * np.float32(1.000001))
    artifact, _ = instances.find_artifacts(values, 0.5, True, (1,))
    assert artifact.max() <= 1


def test_seven_planes_are_needed():
    with pytest.raises(ValueError, match="7, H, W"):
        instances.find_artifacts(np.zeros((8, 3, 3), np.float32), 0.5, True, (1,))
