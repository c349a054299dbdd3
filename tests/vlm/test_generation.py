import copy

import numpy as np
import torch

from artifactnet.vlm.heie.model import MapTokens, generate

RNG = np.random.default_rng(4)


def picture(height, width):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(rule, start, wishes):
    """Greedy writing of one row by a model that always wishes for the same tokens."""
    ids = torch.tensor([start])
    for wish in wishes:
        scores = torch.zeros(1, 12)
        scores[0, wish] = 1.0
        ids = torch.cat([ids, rule(ids, scores).argmax(1, keepdim=True)], 1)
    return ids[0, len(start) :].tolist()


def test_first_map_token_becomes_one_for_each_piece_and_there_is_no_other():
    rule = MapTokens([(1, 2)], prompt=2, map_id=7, forbidden=[9])
    # a map token inside the prompt does not count
    assert write(rule, [7, 3], [4, 7, 4, 4, 4, 7]) == [4, 7, 7, 7, 4, 0]


def test_image_tokens_are_never_written():
    rule = MapTokens([(1, 1)], prompt=1, map_id=7, forbidden=[9, 10])
    assert write(rule, [3], [9, 10, 5]) == [0, 0, 5]


def test_rows_have_their_own_counts():
    rule = MapTokens([(1, 1), (3, 2)], prompt=1, map_id=7, forbidden=[])
    ids = torch.tensor([[1, 7, 7], [1, 7, 7]])
    scores = torch.zeros(2, 12)
    scores[:, 7] = 1.0
    found = rule(ids, scores)
    assert found[0, 7] == -torch.inf
    assert found[1].argmax() == 7
    assert torch.isinf(found[1]).sum() == 11
    assert scores[0, 7] == 1.0  # as given


def test_texts_of_a_batch_are_those_of_each_alone(heie):
    """Greedy answers of random weights: any text, but the same with and without neighbours."""
    heie.mllm = copy.copy(heie.mllm)
    heie.mllm.max_new_tokens = 12
    images = [picture(56, 56), picture(112, 56)]
    together = generate(heie, images)
    assert len(together) == 2
    assert together == [generate(heie, [image])[0] for image in images]
    assert not heie.training


def test_a_model_that_always_says_map_writes_one_mark(heie, monkeypatch):
    heie.mllm = copy.copy(heie.mllm)
    heie.mllm.max_new_tokens = 9
    processing = heie.processing
    real = heie.causal.lm_head.forward

    def forward(states):
        logits = real(states)
        logits[..., processing.map_id] += 1000.0
        return logits

    monkeypatch.setattr(heie.causal.lm_head, "forward", forward)
    (text,) = generate(heie, [picture(112, 56)])
    assert text.startswith("[MAP]")
    assert text.count("[MAP]") == 1


def test_control_words_are_never_written(heie, monkeypatch):
    heie.mllm = copy.copy(heie.mllm)
    heie.mllm.max_new_tokens = 5
    tokenizer = heie.processing.processor.tokenizer
    (start,) = tokenizer.convert_tokens_to_ids(["<|im_start|>"])
    assert start in heie.processing.forbidden_ids
    assert heie.processing.end_id not in heie.processing.forbidden_ids
    real = heie.causal.lm_head.forward

    def forward(states):
        logits = real(states)
        logits[..., start] += 1000.0
        return logits

    monkeypatch.setattr(heie.causal.lm_head, "forward", forward)
    (text,) = generate(heie, [picture(56, 56)])
    assert "<|im_start|>" not in text
