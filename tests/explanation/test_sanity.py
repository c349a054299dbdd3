"""Shuffled weights and rank correlation."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from tiny_models import tiny
from torch import nn

from artifactnet.explanation.detector import Classifier, OwnDetector
from artifactnet.explanation.sanity import randomized, rank_correlation, shuffle_weights


def classifier():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.LazyLinear(1)
    )
    net(torch.randn(4, 3, 8, 8))  # makes the lazy layer, moves the statistics
    return Classifier(net, (8, 8))


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("make", [classifier, lambda: OwnDetector(tiny())])
def test_every_weight_keeps_its_values_but_not_their_places(make):
    detector = make()
    before = snapshot(detector.module)
    other = randomized(detector, seed=3)
    after = other.module.state_dict()
    moved = 0
    for name, weight in detector.module.named_parameters():
        old, new = before[name].flatten(), after[name].flatten()
        assert torch.equal(old.sort().values, new.sort().values), name
        if old.unique().numel() > 1:
            assert not torch.equal(old, new), name
            moved += weight.numel()
        else:
            assert torch.equal(old, new), name
    assert moved > 0.9 * sum(weight.numel() for weight in detector.module.parameters())
    for name, buffer in detector.module.named_buffers():
        assert torch.equal(buffer, after[name]), name
    # the detector itself is as it was
    assert all(
        torch.equal(value, before[name]) for name, value in snapshot(detector.module).items()
    )


def test_what_has_one_value_and_what_is_no_weight_stays():
    module = nn.Module()
    module.scale = nn.Parameter(torch.tensor([2.5]))
    module.flat = nn.Parameter(torch.full((3, 4), 0.5))
    module.counts = nn.Parameter(torch.arange(100), requires_grad=False)
    module.kept = nn.Parameter(torch.arange(100.0), requires_grad=False)
    module.register_buffer("running", torch.arange(100.0))
    before = snapshot(module)
    shuffle_weights(module)
    for name in ("scale", "flat", "counts", "running"):
        assert torch.equal(getattr(module, name), before[name])
    assert not torch.equal(module.kept, before["kept"])  # frozen weights are learnt all the same
    assert not module.kept.requires_grad


def test_a_shared_weight_is_shuffled_once_and_stays_shared():
    module = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    module[1].weight = module[0].weight
    single = nn.Sequential(copy.deepcopy(module[0]))
    shuffle_weights(module, 0)
    shuffle_weights(single, 0)
    assert module[1].weight is module[0].weight
    assert torch.equal(module[0].weight, single[0].weight)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(2, 6), st.integers(2, 30))
def test_correlation_is_that_of_scipy(seed, height, width, levels):
    rng = np.random.default_rng(seed)
    first = rng.integers(0, levels, (height, width)).astype(np.float32)
    second = (first * rng.normal() + rng.integers(0, levels, (height, width))).astype(np.float32)
    found = rank_correlation(first, second)
    if first.min() == first.max() or second.min() == second.max():
        assert found is None
    else:
        expected = spearmanr(first.ravel(), second.ravel()).statistic
        assert found == pytest.approx(expected, abs=1e-12)
    assert rank_correlation(second, first) == found


def test_maps_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="one size"):
        rank_correlation(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="not finite"):
        rank_correlation(np.ones((1, 2)), np.array([[1.0, np.nan]]))


def test_the_copy_hangs_together_and_the_seed_decides():
    """What is explained must be the shuffled model, not the one it was made from."""
    for detector in (classifier(), OwnDetector(tiny())):
        first, second, third = (randomized(detector, seed) for seed in (1, 1, 2))
        for other in (copy.deepcopy(detector), first):
            net = other.model.backbone.net if hasattr(other, "model") else other.module
            assert other.net is net
            shared = {id(weight) for weight in detector.module.parameters()}
            assert not shared & {id(weight) for weight in other.module.parameters()}
        one, two, three = (snapshot(each.module) for each in (first, second, third))
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert any(not torch.equal(one[name], three[name]) for name in one)
