"""Agreement of generated explanations with reference texts: perplexity, BLEU and ROUGE-L.

BLEU and ROUGE-L are those of torchmetrics, BLEU in float64 and ROUGE-L with words in any script.
HEIE's special marks are removed from both texts first: they are not words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text import rouge_score
from torchmetrics.text import BLEUScore

from artifactnet.metrics.alone import count_alone
from artifactnet.metrics.checks import DIVERGED
from artifactnet.types import ArtifactNetError

MARKS = ("[MAP]", "[SCORE]")
_WORD = re.compile(r"[^\W_]+")


def without_marks(text: str) -> str:
    """The text without ``[MAP]`` and ``[SCORE]``."""
    for mark in MARKS:
        text = text.replace(mark, "")
    return text


def perplexity(nll: Tensor, tokens: Tensor) -> float | None:
    """Perplexity of a corpus: exp of the mean negative log-likelihood over all its tokens.

    Args:
        nll: (N,) summed negative log-likelihood of each text, natural logarithm.
        tokens: (N,) number of tokens of each text.

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


def bleu(written: Sequence[str], references: Sequence[str], order: int = 4) -> float | None:
    """BLEU of a corpus (Papineni et al. 2002), one reference per text, not smoothed.

    Words are separated by white space. Other processes of a distributed run are left alone.

    Args:
        written: generated texts.
        references: as many.
        order: longest n-gram: 4 gives BLEU-4, 2 BLEU-2; all lengths have the same weight.

    Returns:
        In [0, 1]; 0 if no n-gram of some length occurs in the references; None without texts.

    Raises:
        ValueError: different numbers of texts and references, or an order below 1.
    """
    metric = _bleu(order)
    count_alone(metric)
    _add_texts(metric, written, references)
    return float(metric.compute()) if written else None


def rouge_l(written: str, reference: str) -> float:
    """ROUGE-L (Lin 2004) of one text: F1 of the longest common subsequence of words, in [0, 1].

    Words are runs of letters and digits of any script in lower case; on ASCII text these are the
    words of the package ``rouge-score`` and of torchmetrics. 0 if either text has no word.
    """
    texts = without_marks(written), without_marks(reference)
    scores = rouge_score(*texts, rouge_keys="rougeL", normalizer=str.lower, tokenizer=_WORD.findall)
    return float(scores["rougeL_fmeasure"])


class TextMetric(Metric):
    """`perplexity`, `bleu` and mean `rouge_l` over a data set; sums add up over processes."""

    full_state_update = False
    likelihood: Tensor
    tokens: Tensor
    overlap: Tensor
    texts: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("likelihood", "overlap", "tokens", "texts"):
            dtype = torch.long if name in ("tokens", "texts") else torch.float64
            self.add_state(name, default=torch.zeros(1, dtype=dtype), dist_reduce_fx="sum")
        self.bleu = _bleu(4)

    def update(
        self,
        nll: Tensor | None = None,
        tokens: Tensor | None = None,
        written: Sequence[str] = (),
        references: Sequence[str] = (),
    ) -> None:
        """Add a batch: likelihoods and tokens of reference texts (see `perplexity`), generated
        texts with as many references, or both.

        Raises:
            ValueError: shapes or lengths do not match.
            ArtifactNetError: a likelihood is not finite.
        """
        if (nll is None) != (tokens is None):
            raise ValueError("pass likelihoods and counts of tokens together")
        _add_texts(self.bleu, written, references)
        if nll is not None and tokens is not None:
            perplexity(nll, tokens)  # for its checks
            self.likelihood += nll.detach().double().sum().to(self.device)
            self.tokens += tokens.sum().to(self.device)
        self.overlap += sum(map(rouge_l, written, references))
        self.texts += len(written)

    def reset(self) -> None:
        """Start empty."""
        super().reset()
        self.bleu.reset()

    def compute(self) -> dict[str, Any]:
        """``perplexity`` over ``tokens``, ``BLEU`` and ``ROUGE-L`` over ``texts``; None if 0."""
        texts = int(self.texts)
        return {
            "perplexity": _perplexity(float(self.likelihood), int(self.tokens)),
            "BLEU": float(self.bleu.compute()) if texts else None,
            "ROUGE-L": float(self.overlap) / texts if texts else None,
            "tokens": int(self.tokens),
            "texts": texts,
        }


def _bleu(order: int) -> Metric:
    if order < 1:
        raise ValueError(f"the order of BLEU must be at least 1, got {order}")
    return BLEUScore(order).set_dtype(torch.float64)  # its counts stay exact up to 2^53


def _add_texts(metric: Metric, written: Sequence[str], references: Sequence[str]) -> None:
    if len(written) != len(references):
        raise ValueError(f"{len(written)} texts for {len(references)} references")
    plain = [without_marks(text) for text in written]
    metric.update(plain, [[without_marks(text)] for text in references])


def _perplexity(nll: float, tokens: int) -> float | None:
    if not tokens and math.isfinite(nll):
        return None
    try:
        value = math.exp(nll / tokens) if tokens else math.nan
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise ArtifactNetError(f"a text's likelihood is not finite: {DIVERGED}")
    return value
