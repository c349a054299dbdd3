"""Perplexity, BLEU and ROUGE-L against loops, and against other people's code."""

import math
import statistics
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.metrics.text import MARKS, TextMetric, bleu, perplexity, rouge_l, without_marks
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.text import chain_of_thought

# few words, so that n-grams repeat and are shared
WORDS = st.lists(st.sampled_from(["the", "paw", "has", "toes", "a"]), max_size=14).map(" ".join)
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5)


def reference_bleu(pairs, order: int = 4) -> float:
    """Papineni et al. 2002, Sec. 2, n-gram by n-gram."""
    logs = []
    for n in range(1, order + 1):
        right = total = 0
        for written, reference in pairs:
            words, left = written.split(), reference.split()
            grams = [left[k : k + n] for k in range(len(left) - n + 1)]
            for k in range(len(words) - n + 1):
                total += 1
                if words[k : k + n] in grams:
                    grams.remove(words[k : k + n])
                    right += 1
        if right == 0:
            return 0.0
        logs.append(math.log(right / total))
    c, r = (sum(len(pair[k].split()) for pair in pairs) for k in (0, 1))
    return (1 if c > r else math.exp(1 - r / c)) * math.exp(sum(logs) / order)


def reference_rouge(written: str, reference: str) -> float:
    """Lin 2004, Sec. 3.1, with beta = 1; the subsequence by its recursion."""
    x, y = written.split(), reference.split()

    @cache
    def lcs(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return 0
        if x[i - 1] == y[j - 1]:
            return lcs(i - 1, j - 1) + 1
        return max(lcs(i - 1, j), lcs(i, j - 1))

    common = lcs(len(x), len(y))
    if common == 0:
        return 0.0
    recall, precision = common / len(y), common / len(x)
    return 2 * recall * precision / (recall + precision)


@settings(max_examples=80, deadline=None)
@given(PAIRS)
def test_bleu_is_that_of_the_paper_and_of_torchmetrics(pairs):
    from torchmetrics.functional.text import bleu_score

    written, references = zip(*pairs, strict=True)
    found = bleu(written, references)
    assert found == pytest.approx(reference_bleu(pairs), abs=1e-12)
    theirs = bleu_score(written, [[reference] for reference in references])
    assert found == pytest.approx(float(theirs), abs=1e-5)
    assert 0 <= found <= 1
    for order, rounding in ((1, 1e-12), (2, 1e-12), (3, 1e-7)):  # 1/3 as a float32 weight
        expected = reference_bleu(pairs, order)
        assert bleu(written, references, order) == pytest.approx(expected, abs=rounding)


@settings(max_examples=80, deadline=None)
@given(WORDS, WORDS)
def test_rouge_is_that_of_the_paper(written, reference):
    score = rouge_l(written, reference)
    assert score == pytest.approx(reference_rouge(written, reference), abs=1e-6)  # float32
    assert score == rouge_l(reference, written)


def test_words_of_ascii_text_are_those_of_torchmetrics():
    from torchmetrics.functional.text.rouge import rouge_score

    written = "The paw's seven toes, (and claws)... melt! It is 3 cm too LONG."
    reference = "Seven toes on the paw; the claws melt. It's too long - by 3cm or 3 cm."
    theirs = rouge_score([written], [[reference]], rouge_keys="rougeL")["rougeL_fmeasure"]
    assert 0.3 < rouge_l(written, reference) < 0.9
    assert rouge_l(written, reference) == pytest.approx(float(theirs), abs=1e-6)


def test_bleu_of_one_example_by_hand():
    # 5 of 6 words, 3 of 5 pairs, 1 of 4 triples, then none; with the last word gone 0.
    assert bleu(["the cat is on the mat"], ["there is a cat on the mat"]) == 0
    written, reference = "a cat is on the mat", "there is a cat is on the mat now"
    assert bleu([written], [reference]) == pytest.approx(math.exp(1 - 9 / 6))
    assert bleu([reference], [reference]) == 1
    # two texts are one corpus, not the mean of two figures
    mixed = bleu([written, "x y z w"], [reference, "x y z v"])
    shares = [(6 + 3) / 10, (5 + 2) / 8, (4 + 1) / 6, 3 / 4]
    assert mixed == pytest.approx(math.exp(1 - 13 / 10) * math.prod(shares) ** 0.25)


def test_bleu_2_and_rouge_l_of_captions():
    written = ["the left hand has six fingers", "blurred text", ""]
    references = ["left hand with six fingers", "blurred text on the sign", "a warped window frame"]

    def figures(*chosen: int) -> tuple[float | None, float]:
        texts, truths = [written[k] for k in chosen], [references[k] for k in chosen]
        return bleu(texts, truths, order=2), statistics.fmean(map(rouge_l, texts, truths))

    assert figures(0) == pytest.approx((0.516398, 0.727273), abs=5e-7)
    assert figures(1) == pytest.approx((0.223130, 0.571429), abs=5e-7)
    assert figures(0, 1) == pytest.approx((0.476916, 0.649351), abs=5e-7)
    assert figures(0, 1, 2) == pytest.approx((0.289264, 0.432900), abs=5e-7)


def test_marks_are_no_words_and_letters_of_any_script_are():
    assert MARKS == chain_of_thought.MARKS
    assert without_marks("are [MAP][MAP]. is [SCORE]") == "are . is "
    text = "the regions are here and the score is low"
    marked = "the regions [MAP] are here and the score [SCORE] is low"
    assert rouge_l(marked, text) == bleu([marked], [text]) == 1
    assert rouge_l("[MAP]", "[MAP]") == bleu(["[MAP]"], ["[MAP]"]) == 0
    assert rouge_l("Die Füße schweben", "die FÜSSE schweben") == pytest.approx(2 / 3)
    assert rouge_l("猫 坐", "猫 在 坐") == pytest.approx(0.8)


def test_perplexity_weighs_tokens_alike():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 7, 11, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 11, (3, 7), generator=generator)
    labels[0, 2:] = -100
    logs = logits.log_softmax(-1)
    nll = torch.zeros(3, dtype=torch.float64)
    for b in range(3):
        for k in range(7):
            if labels[b, k] >= 0:
                nll[b] -= logs[b, k, labels[b, k]]
    found = perplexity(nll, torch.tensor([2, 7, 7]))
    mean = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert found == pytest.approx(math.exp(mean), rel=1e-12)
    assert perplexity(torch.zeros(2), torch.tensor([3, 4])) == 1
    assert perplexity(torch.full((1,), 5 * math.log(9)), torch.tensor([5])) == pytest.approx(9)
    # the mean of the texts' own figures would be another
    assert perplexity(torch.tensor([0.0, 30.0]), torch.tensor([20, 10])) == pytest.approx(math.e)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_without_anything_there_is_no_figure():
    nothing = torch.zeros(0)
    assert perplexity(nothing, nothing.long()) is None
    assert perplexity(torch.zeros(2), torch.zeros(2).long()) is None
    assert bleu([], []) is None
    assert bleu([""], [""]) == rouge_l("", "x") == rouge_l("x", "") == rouge_l("", "") == 0
    found = TextMetric().compute()
    figures = dict.fromkeys(("perplexity", "BLEU", "ROUGE-L"))
    assert found == {**figures, "tokens": 0, "texts": 0}


def test_bad_input_is_refused():
    one = torch.ones(1)
    for value, tokens in ((math.nan, 1), (math.inf, 1), (1e30, 1), (math.nan, 0)):
        for call in (perplexity, TextMetric().update):
            with pytest.raises(ArtifactNetError, match="likelihood is not finite"):
                call(one * value, one.long() * tokens)
    for counts in (torch.ones(2).long(), torch.ones(1, 1).long()):
        with pytest.raises(ValueError, match="sums and counts"):
            perplexity(one, counts)
    with pytest.raises(ValueError, match="negative"):
        perplexity(one, -one.long())
    with pytest.raises(ValueError, match="1 texts for 2 references"):
        bleu(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="tokens"):
        TextMetric().update(one)
    with pytest.raises(ValueError, match="order of BLEU"):
        bleu(["a"], ["a"], order=0)


LIKELIHOODS, TOKENS = torch.tensor([3.5, 8.25, 1.0, 4.0]), torch.tensor([4, 9, 1, 6])
WRITTEN = ["the paw has five toes now", "a cat", "the tail is bent and very long", ""]
REFERENCES = ["the paw has seven toes now", "a dog", "the tail is bent and long", "nothing"]


def test_the_metric_is_the_functions_over_all_batches():
    metric = TextMetric()
    for k in range(4):
        one = slice(k, k + 1)
        metric.update(LIKELIHOODS[one], TOKENS[one], WRITTEN[one], REFERENCES[one])
    result = metric.compute()
    assert result["perplexity"] == pytest.approx(perplexity(LIKELIHOODS, TOKENS), rel=1e-12)
    assert result["BLEU"] == bleu(WRITTEN, REFERENCES) > 0
    each = [rouge_l(*pair) for pair in zip(WRITTEN, REFERENCES, strict=True)]
    assert result["ROUGE-L"] == pytest.approx(sum(each) / 4, rel=1e-12)
    assert (result["tokens"], result["texts"]) == (20, 4)
    metric.reset()
    metric.update(LIKELIHOODS, TOKENS)
    result = metric.compute()
    assert (result["BLEU"], result["ROUGE-L"], result["texts"]) == (None, None, 0)
    metric.reset()
    metric.update(written=WRITTEN, references=REFERENCES)
    assert metric.compute()["perplexity"] is None
    assert metric.compute()["BLEU"] == bleu(WRITTEN, REFERENCES)


def test_bleu_never_waits_for_other_processes(monkeypatch):
    """As the main process of a distributed training calls it, alone."""
    monkeypatch.setattr("torchmetrics.metric.jit_distributed_available", lambda: True)
    metric = TextMetric()
    metric.update(written=WRITTEN, references=REFERENCES)
    with pytest.raises(ValueError, match="process group"):
        metric.compute()
    assert bleu(WRITTEN, REFERENCES) > 0
