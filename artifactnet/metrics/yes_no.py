"""Answers Yes or No to one question: accuracy, and figures of the answer Yes (Q-Real, Sec. 5).

Yes is the positive class of every question, whether it is good news or bad (our reading: it fits
the paper's Table 1). An answer that is neither counts as the opposite of the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from artifactnet.metrics.confusion import ratio
from artifactnet.metrics.ranking import auc


class YesNoScores(NamedTuple):
    """Figures of one question, each in [0, 1]; 0/0 is 0."""

    answers: int  # how many there should be
    unreadable: int  # of them: neither Yes nor No
    accuracy: float
    precision: float
    recall: float
    f1: float
    auc: float | None  # None if no answer of a class has a score
    scored: int  # answers with a score, over which AUC is computed
    yes: float  # share of Yes in the truth: a rare one makes F1 small


def yes_no_scores(
    truth: Sequence[bool], answers: Sequence[bool | None], scores: Sequence[float | None]
) -> YesNoScores:
    """Figures of the answers to one question.

    Args:
        truth: True is Yes.
        answers: likewise; None is neither.
        scores: larger for a surer Yes; None where there is none.

    Raises:
        ValueError: the lengths differ, or a score is NaN.
    """
    if not len(truth) == len(answers) == len(scores):
        raise ValueError(
            f"need equally many truths, answers and scores, got {len(truth)}, {len(answers)} and "
            f"{len(scores)}"
        )
    said = [
        not true if answer is None else answer for true, answer in zip(truth, answers, strict=True)
    ]
    pairs = list(zip(truth, said, strict=True))
    tp, fp = pairs.count((True, True)), pairs.count((False, True))
    fn, tn = pairs.count((True, False)), pairs.count((False, False))
    scored = [(true, score) for true, score in zip(truth, scores, strict=True) if score is not None]
    return YesNoScores(
        answers=len(pairs),
        unreadable=sum(answer is None for answer in answers),
        accuracy=ratio(tp + tn, len(pairs)),
        precision=ratio(tp, tp + fp),
        recall=ratio(tp, tp + fn),
        f1=ratio(2 * tp, 2 * tp + fp + fn),
        auc=auc([true for true, _ in scored], [score for _, score in scored]),
        scored=len(scored),
        yes=ratio(tp + fn, len(pairs)),
    )


def mean_scores(questions: Sequence[YesNoScores]) -> dict[str, float | None]:
    """Mean of each figure over questions; that of AUC is None if one question has none (ours)."""
    found: dict[str, float | None] = {
        name: float(np.mean([getattr(one, name) for one in questions]))
        for name in ("accuracy", "precision", "recall", "f1")
    }
    areas = [one.auc for one in questions]
    known = [area for area in areas if area is not None]
    found["auc"] = float(np.mean(known)) if len(known) == len(areas) else None
    return found
