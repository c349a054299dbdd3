"""Generation: runs of map tokens, forbidden tokens, and batches."""

import copy

import pytest
import torch
from tiny_mllm import random_image

from artifactnet.vlm.heie.model import MapTokens, generate_texts


@pytest.fixture
def writer(heie, monkeypatch):
    """Sets the number of tokens and the token that the model always wants to write."""

    def prepare(tokens, favourite=None):
        heie.mllm = copy.copy(heie.mllm)
        heie.mllm.max_new_tokens = tokens
        forward = heie.causal.lm_head.forward

        def biased(states):
            logits = forward(states)
            logits[..., favourite] += 1000.0
            return logits

        if favourite is not None:
            monkeypatch.setattr(heie.causal.lm_head, "forward", biased)
        return heie

    return prepare


def test_a_bias_holds_where_the_tokens_before_it_were_written(writer, built_heie):
    tokenize = built_heie.processing.tokenize
    (favourite,) = tokenize("Q")
    assert tokenize("QZ") == [favourite, *tokenize("Z")]
    heie = writer(5, favourite)
    assert generate_texts(heie, [random_image(56, 56)]) == ["QQQQQ"]
    heie.mllm.sequence_bias = {"QZ": 3000, "Q": -10.0}
    assert generate_texts(heie, [random_image(56, 56)] * 2) == ["QZQZQ"] * 2
    heie.mllm.sequence_bias = {"QZ": 500.0}
    assert generate_texts(heie, [random_image(56, 56)]) == ["QQQQQ"]


@pytest.mark.parametrize(
    ("grid", "prompt", "forbidden", "wishes", "written"),
    [
        # the first map token becomes one for each piece; those of the prompt do not count
        ((1, 2), [7, 3], [9], [4, 7, 4, 4, 4, 7], [4, 7, 7, 7, 4, 0]),
        ((1, 1), [3], [9, 10], [9, 10, 5], [0, 0, 5]),
    ],
)
def test_greedy_decoding_with_map_tokens(grid, prompt, forbidden, wishes, written):
    rule = MapTokens([grid], prompt=len(prompt), map_id=7, forbidden=forbidden)
    ids = torch.tensor([prompt])
    for wish in wishes:
        scores = torch.zeros(1, 12)
        scores[0, wish] = 1.0
        ids = torch.cat([ids, rule(ids, scores).argmax(1, keepdim=True)], 1)
    assert ids[0, len(prompt) :].tolist() == written


def test_rows_have_their_own_counts():
    rule = MapTokens([(1, 1), (3, 2)], prompt=1, map_id=7, forbidden=[])
    ids = torch.tensor([[1, 7, 7], [1, 7, 7]])
    scores = torch.zeros(2, 12)
    scores[:, 7] = 1.0
    found = rule(ids, scores)
    assert found[0, 7] == -torch.inf
    assert found[1].argmax() == 7
    assert torch.isinf(found[1]).sum() == 11
    assert scores[0, 7] == 1.0  # not changed in place


def test_texts_of_a_batch_are_those_of_each_image_alone(writer):
    """Greedy answers of random weights: any text, but the same with and without neighbours."""
    heie = writer(6)
    images = [random_image(56, 56), random_image(112, 56)]
    together = generate_texts(heie, images)
    assert together == [generate_texts(heie, [image])[0] for image in images]
    assert not heie.training


def test_model_that_always_wants_the_map_token_writes_one_mark(writer, built_heie):
    heie = writer(5, built_heie.processing.map_id)
    (text,) = generate_texts(heie, [random_image(112, 56)])
    assert text.startswith("[MAP]")
    assert text.count("[MAP]") == 1


def test_control_words_are_never_written(writer, built_heie):
    processing = built_heie.processing
    (start,) = processing.processor.tokenizer.convert_tokens_to_ids(["<|im_start|>"])
    assert start in processing.forbidden_ids
    assert processing.end_id not in processing.forbidden_ids
    (text,) = generate_texts(writer(3, start), [random_image(56, 56)])
    assert "<|im_start|>" not in text
