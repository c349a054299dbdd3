"""The two-way block against its equation written out, positions, and the mapper's maps."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.models.heads.decoder import LOG_SIGMA
from artifactnet.models.heads.mapper import (
    Attention,
    ImplausibilityMapper,
    LearnedTokens,
    TwoWayBlock,
    positions,
)


def mapper(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"token_width": 6, "feature_width": 5, "width": 8, "blocks": 2, "heads": 2}
    return ImplausibilityMapper(**(sizes | changes)).double()


def attention_by_loops(module, queries, keys, values):
    """One image: (N, width), (P, width), (P, width) -> (N, width)."""
    q, k, v = module.query(queries), module.key(keys), module.value(values)
    size = q.shape[1] // module.heads
    out = torch.zeros_like(q)
    for head in range(module.heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(q)):
            scores = [float(q[i, part] @ k[j, part]) / math.sqrt(size) for j in range(len(k))]
            total = sum(math.exp(s) for s in scores)
            for j in range(len(k)):
                out[i, part] += math.exp(scores[j]) / total * v[j, part]
    return module.out(out)


@torch.no_grad()
def test_two_way_block_is_equation_1_with_residuals():
    torch.manual_seed(0)
    block = TwoWayBlock(8, 2).double()
    tokens, features = torch.randn(2, 3, 8).double(), torch.randn(2, 5, 8).double()
    place = torch.randn(5, 8).double()
    got_tokens, got_features = block(tokens, features, place)
    for b in range(2):
        t, f = tokens[b], features[b]
        t = block.norm_self(t + attention_by_loops(block.among_tokens, t, t, t))
        c_tf = t + attention_by_loops(block.to_tokens, t, f + place, f)
        t = block.norm_tokens(c_tf + block.mlp(block.norm_cross(c_tf)))
        f = block.norm_features(f + attention_by_loops(block.to_features, f + place, t, t))
        torch.testing.assert_close(got_tokens[b], t)
        torch.testing.assert_close(got_features[b], f)


@settings(deadline=None)
@given(
    pieces=st.integers(1, 3),
    tokens=st.integers(1, 3),
    cells=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_maps_have_four_times_the_cells_for_any_grid(pieces, tokens, cells):
    level = mapper()(
        torch.randn(pieces, tokens, 6).double(), torch.randn(pieces, 5, *cells).double()
    )
    size = (pieces, 4 * cells[0], 4 * cells[1])
    assert level.logit.shape == level.log_sigma.shape == size
    assert (level.log_sigma > LOG_SIGMA[0]).all()
    assert (level.log_sigma < LOG_SIGMA[1]).all()


def test_first_maps_are_clean_and_unsure():
    level = mapper(width=32, heads=4).float()(torch.randn(4, 2, 6), torch.randn(4, 5, 7, 7))
    assert level.logit.sigmoid().mean().item() == pytest.approx(0.05, abs=0.03)
    assert level.log_sigma.mean().item() == pytest.approx(-1, abs=0.3)


def test_both_tokens_and_features_and_places_matter():
    net = mapper()
    tokens, features = torch.randn(1, 2, 6).double(), torch.randn(1, 5, 3, 3).double()
    first = net(tokens, features).logit
    assert not torch.allclose(first, net(tokens + 1, features).logit)
    assert not torch.allclose(first, net(tokens, features + torch.randn_like(features)).logit)
    flat = net(tokens, torch.ones_like(features)).logit
    # cells without any content differ by their place alone; the 4x4 pixels inside compared
    assert not torch.allclose(flat[0, 5:7, 1:3], flat[0, 5:7, 5:7])
    torch.testing.assert_close(net(tokens.flip(1), features).logit, first)  # tokens are a set


def test_an_extreme_deviation_can_come_back():
    net = mapper()
    tokens, features = torch.randn(1, 2, 6).double(), torch.randn(1, 5, 2, 2).double()
    for bias in (-12.0, 12.0):
        torch.nn.init.constant_(net.maps.bias, bias)
        net.zero_grad()
        net(tokens, features).log_sigma.sum().backward()
        assert net.maps.bias.grad[1] > 0


def test_positions_are_the_waves_of_rows_and_columns():
    found = positions(3, 4, 8)
    for r in range(3):
        for c in range(4):
            waves = [1.0, 1 / 100]
            expected = [f(r * w) for f in (math.sin, math.cos) for w in waves]
            expected += [f(c * w) for f in (math.sin, math.cos) for w in waves]
            torch.testing.assert_close(found[r * 4 + c], torch.tensor(expected))
    assert torch.equal(
        positions(5, 7, 16).reshape(5, 7, 16)[:3, :4], positions(3, 4, 16).reshape(3, 4, 16)
    )
    assert len(positions(9, 9, 16).unique(dim=0)) == 81


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiple of 4, not 10"):
        mapper(width=10)
    with pytest.raises(ValueError, match="3 attention heads do not divide a width of 8"):
        mapper(heads=3)
    with pytest.raises(ValueError, match="0 attention heads"):
        Attention(8, 0)


def source(tokens=3):
    torch.manual_seed(0)
    return LearnedTokens(8, tokens, 2)


def test_the_score_token_depends_on_its_own_thumbnail_alone():
    net = source()
    thumbnails, tiles = torch.randn(2, 5, 8), torch.randn(4, 5, 8)
    first = net(thumbnails, tiles).score
    assert not torch.allclose(first[0], first[1])
    torch.testing.assert_close(net(thumbnails, torch.randn(4, 5, 8)).score, first)
    changed = thumbnails.clone()
    changed[1] += torch.randn(5, 8)
    second = net(changed, tiles).score
    torch.testing.assert_close(second[0], first[0])
    assert not torch.allclose(second[1], first[1])


def test_no_tokens_are_refused():
    with pytest.raises(ValueError, match="at least 1 map token"):
        source(tokens=0)
