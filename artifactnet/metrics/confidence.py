"""Does the judge do better where the annotators were sure? Annotations filtered by confidence.

X-AIGD, Sec. 3.2 and A.6. The public label files hold no confidences; where a user has them,
these functions take them. 0/0 is 0; counts stand beside every figure.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from artifactnet.metrics.scores import ratio
from artifactnet.types import ArtifactNetError


def confident_annotations(confidence: Tensor, minimum: float) -> Tensor:
    """Which annotated instances to keep: filtering by confidence (A.6).

    In X-AIGD three annotators gave each instance 0 (no artifact), 0.5 (ambiguous) or 1 (clear);
    an instance's confidence is their mean (Sec. 3.2).

    Args:
        confidence: (N, annotators) scores, or (N,) means, in [0, 1].
        minimum: least mean confidence of an instance that is kept.

    Returns:
        (N,) bool.

    Raises:
        ValueError: wrong shape.
        ArtifactNetError: a score is not a number in [0, 1].
    """
    if confidence.ndim not in (1, 2) or confidence.shape[1:] == (0,):
        raise ValueError(f"need (N,) or (N, annotators) scores, got {tuple(confidence.shape)}")
    scores = confidence.double()
    bad = int((~((scores >= 0) & (scores <= 1))).sum())
    if bad:
        raise ArtifactNetError(
            f"{bad} confidence scores are not numbers in [0, 1]; give 0 (no artifact), 0.5 "
            "(ambiguous), 1 (clear), or means of these"
        )
    return (scores if scores.ndim == 1 else scores.mean(dim=1)) >= minimum


def accuracy_by_confidence(
    confidences: Sequence[Tensor | None], correct: Tensor, minimums: Sequence[float]
) -> list[dict[str, float]]:
    """Accuracy on fakes whose artifacts the annotators were sure of.

    For every minimum, annotations below it are filtered out; the fakes that still show an
    artifact are set against the annotated fakes that do not (any longer).

    Args:
        confidences: for each fake the scores of its instances, see `confident_annotations`
            (an empty tensor if it has none); None where no confidence exists.
        correct: (B,) bool, the fake was called fake.
        minimums: least mean confidences, one row each.

    Returns:
        For each minimum: ``minimum``, ``instances`` (kept), ``images`` and ``accuracy`` of
        fakes with a kept instance, ``images_without`` and ``accuracy_without`` of the other
        fakes with confidences, ``unscored_images`` (left out, no confidence).

    Raises:
        ValueError: counts differ, or wrong shapes.
        ArtifactNetError: a score is not a number in [0, 1].
    """
    if correct.shape != (len(confidences),):
        raise ValueError(f"{len(confidences)} images, but answers {tuple(correct.shape)}")
    scored = [
        (scores, right)
        for scores, right in zip(confidences, correct.tolist(), strict=True)
        if scores is not None
    ]
    table = []
    for minimum in minimums:
        kept = [(int(confident_annotations(s, minimum).sum()), right) for s, right in scored]
        shown = [right for count, right in kept if count]
        rest = [right for count, right in kept if not count]
        table.append(
            {
                "minimum": minimum,
                "instances": sum(count for count, _ in kept),
                "images": len(shown),
                "accuracy": ratio(sum(shown), len(shown)),
                "images_without": len(rest),
                "accuracy_without": ratio(sum(rest), len(rest)),
                "unscored_images": len(confidences) - len(scored),
            }
        )
    return table
