"""How written explanations agree with reference texts: perplexity, BLEU and ROUGE-L.

The special marks of HEIE are taken out of both texts first: they say nothing in words.

Both are counted here, and not by torchmetrics. BLEU, so that its counts are whole numbers that
add up over processes: the figure is torchmetrics' own. ROUGE-L, so that letters beyond a to z
count: on English text it is torchmetrics' rougeL.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from artifactnet.types import ArtifactNetError

MARKS = ("[MAP]", "[SCORE]")
ORDER = 4  # longest n-gram of BLEU
_WORD = re.compile(r"[^\W_]+")


def without_marks(text: str) -> str:
    """The text without ``[MAP]`` and ``[SCORE]``."""
    for mark in MARKS:
        text = text.replace(mark, "")
    return text


def perplexity(nll: Tensor, tokens: Tensor) -> float | None:
    """Perplexity of a corpus: exp of the negative log-likelihood per token, every token alike.

    Args:
        nll: (N,) summed negative log-likelihood of each text, natural logarithm.
        tokens: (N,) how many tokens that is the sum of.

    Returns:
        1 or more; None without any token.

    Raises:
        ValueError: shapes differ, or a count is negative.
        ArtifactNetError: a likelihood is not finite, or too small for a finite perplexity.
    """
    if nll.ndim != 1 or nll.shape != tokens.shape:
        raise ValueError(
            f"need (N,) sums and counts, got {tuple(nll.shape)}, {tuple(tokens.shape)}"
        )
    if bool((tokens < 0).any()):
        raise ValueError("a count of tokens is negative")
    return _perplexity(float(nll.double().sum()), int(tokens.sum()))


def bleu(written: Sequence[str], references: Sequence[str]) -> float | None:
    """BLEU-4 of a corpus (Papineni et al. 2002), one reference each, not smoothed.

    Words are what white space separates.

    Args:
        written: N texts.
        references: N texts.

    Returns:
        In [0, 1]; 0 where not even one n-gram of some length is right; None for N = 0.

    Raises:
        ValueError: not equally many of both.
    """
    _check_pairs(written, references)
    counts = torch.zeros(2 * ORDER + 2, dtype=torch.long)
    for pair in zip(written, references, strict=True):
        counts += bleu_counts(*pair)
    return _bleu(counts) if len(written) else None


def rouge_l(written: str, reference: str) -> float:
    """ROUGE-L (Lin 2004) of one text: F1 of the longest common subsequence of words.

    Words are runs of letters and digits, in lower case, as in the package ``rouge-score``.

    Returns:
        In [0, 1]; 0 where a text has no word.
    """
    words, wanted = (_WORD.findall(without_marks(t).lower()) for t in (written, reference))
    if not words or not wanted:
        return 0.0
    return 2 * _common(words, wanted) / (len(words) + len(wanted))


def bleu_counts(written: str, reference: str) -> Tensor:
    """What BLEU needs of one text; counts of a corpus are the sums of those of its texts.

    Returns:
        (10,) int64: for n-grams of 1 to 4 words, how many are in the reference too (each as often
        as there at most); then how many there are; then the words of the text and the reference.
    """
    words, wanted = (without_marks(text).split() for text in (written, reference))
    shared, there = [], []
    for n in range(1, ORDER + 1):
        ours, theirs = _grams(words, n), _grams(wanted, n)
        shared.append((ours & theirs).total())
        there.append(ours.total())
    return torch.tensor([*shared, *there, len(words), len(wanted)])


class TextMetric(Metric):
    """`perplexity`, `bleu` and mean `rouge_l` over a data set; sums add up over processes."""

    full_state_update = False
    likelihood: Tensor
    tokens: Tensor
    counts: Tensor
    overlap: Tensor
    texts: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("likelihood", "overlap"):  # a tensor each: sums are added up in place
            zero = torch.zeros(1, dtype=torch.float64)
            self.add_state(name, default=zero, dist_reduce_fx="sum")
        for name, size in (("tokens", 1), ("texts", 1), ("counts", 2 * ORDER + 2)):
            zeros = torch.zeros(size, dtype=torch.long)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(
        self,
        nll: Tensor | None = None,
        tokens: Tensor | None = None,
        written: Sequence[str] = (),
        references: Sequence[str] = (),
    ) -> None:
        """Add a batch: likelihoods of reference texts, texts that were written, or both.

        Args:
            nll: (B,) see `perplexity`.
            tokens: (B,) likewise.
            written: texts of the model.
            references: as many reference texts.

        Raises:
            ValueError: shapes or lengths do not match.
            ArtifactNetError: a likelihood is not finite.
        """
        _check_pairs(written, references)
        if (nll is None) != (tokens is None):
            raise ValueError("likelihoods and counts of tokens come together")
        if nll is not None and tokens is not None:
            perplexity(nll, tokens)  # for its checks
            self.likelihood += nll.detach().double().sum().to(self.device)
            self.tokens += tokens.sum().to(self.device)
        for pair in zip(written, references, strict=True):
            self.counts += bleu_counts(*pair).to(self.device)
            self.overlap += rouge_l(*pair)
        self.texts += len(written)

    def compute(self) -> dict[str, Any]:
        """``perplexity``, ``BLEU``, ``ROUGE-L`` (None without what they are made of), ``tokens``
        behind the first and ``texts`` behind the other two.
        """
        texts = int(self.texts)
        return {
            "perplexity": _perplexity(float(self.likelihood), int(self.tokens)),
            "BLEU": _bleu(self.counts) if texts else None,
            "ROUGE-L": float(self.overlap) / texts if texts else None,
            "tokens": int(self.tokens),
            "texts": texts,
        }


def _perplexity(nll: float, tokens: int) -> float | None:
    if not tokens and math.isfinite(nll):
        return None
    try:
        found = math.exp(nll / tokens) if tokens else math.nan
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ArtifactNetError(
            "a text's likelihood is not finite: the model's weights are broken or its training "
            "diverged; use an earlier checkpoint"
        )
    return found


def _bleu(counts: Tensor) -> float:
    shared, there = (counts[k * ORDER : (k + 1) * ORDER].tolist() for k in (0, 1))
    length, wanted = counts[2 * ORDER :].tolist()
    if min(shared) == 0:
        return 0.0
    logs = [math.log(right / total) for right, total in zip(shared, there, strict=True)]
    return math.exp(sum(logs) / ORDER + min(0.0, 1 - wanted / length))


def _grams(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))


def _common(words: list[str], wanted: list[str]) -> int:
    """Length of the longest common subsequence, row by row of the usual table."""
    row = [0] * (len(wanted) + 1)
    for word in words:
        before = 0  # of the row above, one to the left
        for k, other in enumerate(wanted, 1):
            above = row[k]
            row[k] = before + 1 if word == other else max(above, row[k - 1])
            before = above
    return row[-1]


def _check_pairs(written: Sequence[str], references: Sequence[str]) -> None:
    if len(written) != len(references):
        raise ValueError(f"{len(written)} texts for {len(references)} references")
