"""The five fusion modes against their formulas, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.models.heads.hierarchy import MODES, Fuser
from artifactnet.types import HeatmapLevel


def levels(seed=0, shape=(2, 3, 4), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    values = 4 * torch.randn(4, *shape, generator=generator, dtype=dtype)
    return HeatmapLevel(values[0], values[1] / 2), HeatmapLevel(values[2], values[3] / 2)


def weight_by_formula(mode, sigma_g, sigma_l, learned):
    if mode == "uncertainty":
        return math.exp(-sigma_l) / (math.exp(-sigma_l) + math.exp(-sigma_g))
    return {"learnable": 1 / (1 + math.exp(-learned)), "fixed": 0.5, "global": 0, "local": 1}[mode]


@settings(deadline=None)
@given(mode=st.sampled_from(MODES), learned=st.floats(-3, 3), seed=st.integers(0, 999))
def test_fused_map_equals_the_formula(mode, learned, seed):
    fuser = Fuser(mode).double()
    if fuser.preference is not None:
        torch.nn.init.constant_(fuser.preference, learned)
    whole, local = levels(seed)
    heatmap, sigma = fuser(whole, local)
    for at in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)).tolist():
        one, two = (1 / (1 + math.exp(-x.logit[tuple(at)])) for x in (whole, local))
        spread_g, spread_l = (math.exp(x.log_sigma[tuple(at)]) for x in (whole, local))
        weight = weight_by_formula(mode, spread_g, spread_l, learned)
        assert heatmap[tuple(at)].item() == pytest.approx(weight * two + (1 - weight) * one)
        expected = weight * spread_l + (1 - weight) * spread_g
        assert sigma[tuple(at)].item() == pytest.approx(expected)


def test_the_surer_map_wins_and_equally_sure_ones_are_averaged():
    low, high = torch.full((1, 1, 1), -2.0), torch.full((1, 1, 1), 1.0)
    yes, no = torch.full((1, 1, 1), 50.0), torch.full((1, 1, 1), -50.0)
    fuser = Fuser("uncertainty")
    assert fuser(HeatmapLevel(yes, low), HeatmapLevel(no, high))[0].item() > 0.9
    assert fuser(HeatmapLevel(yes, high), HeatmapLevel(no, low))[0].item() < 0.1
    assert fuser(HeatmapLevel(yes, low), HeatmapLevel(no, low))[0].item() == pytest.approx(0.5)


@pytest.mark.parametrize("mode", MODES)
def test_values_stay_in_range_at_the_extremes(mode):
    for sign in (-1, 1):
        extreme = HeatmapLevel(torch.full((1, 2, 2), 200.0 * sign), torch.full((1, 2, 2), 5.0))
        other = HeatmapLevel(torch.full((1, 2, 2), 200.0), torch.full((1, 2, 2), -7.0))
        heatmap, sigma = Fuser(mode)(extreme, other)
        assert heatmap.isfinite().all()
        assert ((heatmap >= 0) & (heatmap <= 1)).all()
        assert (sigma > 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_gradients_reach_what_the_mode_uses(mode):
    whole, local = levels()
    values = [whole.logit, whole.log_sigma, local.logit, local.log_sigma]
    for value in values:
        value.requires_grad_()
    fuser = Fuser(mode).double()
    fuser(whole, local)[0].sum().backward()
    used = {
        "uncertainty": [True] * 4,
        "global": [True, False, False, False],
        "local": [False, False, True, False],
    }.get(mode, [True, False, True, False])
    reached = [value.grad is not None and bool(value.grad.any()) for value in values]
    assert reached == used
    assert sum(weight.numel() for weight in fuser.parameters()) == (mode == "learnable")
    assert all(weight.grad.abs() > 0 for weight in fuser.parameters())


def test_low_precision_is_raised_and_bad_input_refused():
    whole, local = levels(dtype=torch.float32)
    half = [HeatmapLevel(x.logit.bfloat16(), x.log_sigma.bfloat16()) for x in (whole, local)]
    heatmap, sigma = Fuser("uncertainty")(*half)
    assert heatmap.dtype == sigma.dtype == torch.float32
    small = HeatmapLevel(local.logit[:, :1], local.log_sigma[:, :1])
    with pytest.raises(ValueError, match="differ in size"):
        Fuser("fixed")(whole, small)
    with pytest.raises(ValueError, match="unknown fusion mode 'mean': one of uncertainty"):
        Fuser("mean")
