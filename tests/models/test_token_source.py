"""Learned tokens: shared by all pieces, except the score token, which sees its image."""

from __future__ import annotations

import pytest
import torch

from artifactnet.models.heads.mapper import LearnedTokens


def source(tokens=3):
    torch.manual_seed(0)
    return LearnedTokens(8, tokens, 2)


def test_shapes_and_that_map_tokens_are_the_same_for_every_piece():
    tokens = source()(torch.randn(2, 5, 8), torch.randn(6, 5, 8))
    assert tokens.global_map.shape == (2, 3, 8)
    assert tokens.local_map.shape == (6, 3, 8)
    assert tokens.score.shape == (2, 8)
    for maps in (tokens.global_map, tokens.local_map):
        assert torch.equal(maps, maps[:1].expand_as(maps))
    assert not torch.equal(tokens.global_map[0], tokens.local_map[0])
    assert len(tokens.local_map[0].unique(dim=0)) == 3


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


def test_tokens_learn():
    net = source()
    tokens = net(torch.randn(2, 5, 8), torch.randn(4, 5, 8))
    # squares: the sum of a layer norm's outputs has no gradient
    total = sum(x.pow(3).sum() for x in (tokens.global_map, tokens.local_map, tokens.score))
    total.backward()
    for name, weight in net.named_parameters():
        if name != "look.key.bias":  # the same for all keys, so the softmax does not see it
            assert weight.grad is not None, name
            assert weight.grad.abs().max() > 1e-7, name


def test_no_tokens_are_refused():
    with pytest.raises(ValueError, match="at least 1 map token"):
        source(tokens=0)
