"""How good are the maps of a detector? Every method against the annotation of a data set.

The interpretation protocol of X-AIGD (Sec. 4): maps of the fake class, cut at a threshold, scored
as category-agnostic artifact detection at the images' original size. Beside it scores without a
threshold, and two that need no annotation: faithfulness and dependence on the weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from artifactnet.explanation.detector import Detector, as_detector
from artifactnet.explanation.explainer import Explainer, Options
from artifactnet.explanation.faithfulness import faithfulness
from artifactnet.explanation.judge_results import markdown, table, write
from artifactnet.explanation.judge_scores import MethodScores
from artifactnet.explanation.judge_targets import Census, Target
from artifactnet.explanation.sanity import randomized, rank_correlation
from artifactnet.inference.inputs import Failure
from artifactnet.inference.predictor import Predictor
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError, Explanation, Sample

__all__ = ["judge", "markdown", "table", "write"]

Answer = Explanation | Failure
_DEFAULT = Options()


def judge(
    model: Detector | ArtifactNet | Predictor,
    samples: Iterable[tuple[str | int, Sample | ArtifactNetError]],
    methods: Sequence[str] | None = None,
    *,
    threshold: float = 0.5,
    overlap: float = 0.5,
    faithfulness_images: int = 0,
    sanity_images: int = 0,
    seed: int = 0,
    options: Options = _DEFAULT,
) -> dict[str, Any]:
    """Judge methods of explanation on a data set.

    Annotated fakes are scored, with artifacts (MASK) or without (CLEAN); others are counted and
    left out, as in the benchmark. One batch is in memory at a time, with the maps of one method.

    Args:
        model: as for `Explainer`.
        samples: name of each image, and the image or why it cannot be used.
        methods: as for `Explainer`.
        threshold: a pixel is called artifact if ``heatmap > threshold``, strictly.
        overlap: share of a region that must lie on an instance, exceeded strictly.
        faithfulness_images: deletion and insertion curves of the first so many annotated fakes.
        sanity_images: randomised-weights check on the first so many annotated fakes.
        seed: of the randomised weights and of the order of equal pixels.
        options: how maps are made.

    Returns:
        A dictionary ready for JSON: ``threshold``, ``overlap``, ``seed``, ``notices`` (the
        detector's warnings), ``images`` (see `Census`) and ``methods``: for each,
        `MethodScores.result`.

    Raises:
        ArtifactNetError: a method that cannot serve the model, a threshold outside [0, 1], or a
            sample whose mask does not belong to its image.
    """
    _check(threshold, overlap, faithfulness_images, sanity_images)
    detector = as_detector(model)
    shuffled = randomized(detector, seed) if sanity_images else None
    trials: dict[str, _Trial] = {}
    for name in Explainer(detector, methods, options).methods:
        other = Explainer(shuffled, [name], options) if shuffled is not None else None
        scores = MethodScores(threshold, overlap)
        own = Explainer(detector, [name], options)
        trials[name] = _Trial(own, other, scores, options.batch_size, seed)
    census, done = Census(), 0
    targets = census.annotated_fakes(samples)
    while batch := list(islice(targets, options.batch_size)):
        for trial in trials.values():
            trial.run(batch, max(0, faithfulness_images - done), max(0, sanity_images - done))
        done += len(batch)
    return {
        "threshold": threshold,
        "overlap": overlap,
        "seed": seed,
        "notices": list(detector.warnings),
        "images": census.result(),
        "methods": {name: trial.scores.result() for name, trial in trials.items()},
    }


@dataclass(frozen=True, slots=True)
class _Trial:
    """One method at work.

    Attributes:
        explainer: of this method alone, so that its time can be told from the others'.
        other: the same of the randomised detector, where that is asked for.
        scores: grows batch by batch.
        batch_size: pictures that pass through the model together.
        seed: of the order of equal pixels.
    """

    explainer: Explainer
    other: Explainer | None
    scores: MethodScores
    batch_size: int
    seed: int

    def run(self, targets: Sequence[Target], curves: int, checks: int) -> None:
        """Explain and score a batch; the first few also by faithfulness and sanity."""
        start = time.perf_counter()
        answers = explain_each(self.explainer, targets)
        self.scores.seconds += time.perf_counter() - start
        for target, answer in zip(targets, answers, strict=True):
            self.scores.add(target, answer)
        for target, answer in zip(targets[:curves], answers[:curves], strict=True):
            if isinstance(answer, Explanation):
                self._follow(target, answer)
        if self.other is not None and checks:
            self._compare(answers[:checks], explain_each(self.other, targets[:checks]))

    def _follow(self, target: Target, answer: Explanation) -> None:
        """Add deletion and insertion of a map."""
        detector = self.explainer.detector
        try:
            curves = faithfulness(
                detector,
                target.pixels,
                answer.heatmap,
                batch_size=self.batch_size,
                seed=self.seed,
            )
        except ArtifactNetError as error:
            raise ArtifactNetError(f"{target.name}: deletion and insertion: {error}") from error
        self.scores.note(deletion=curves.deletion_area, insertion=curves.insertion_area)

    def _compare(self, answers: Sequence[Answer], others: Sequence[Answer]) -> None:
        """Add the correlation of maps with those of the randomised detector."""
        for mine, theirs in zip(answers, others, strict=True):
            if isinstance(mine, Failure):
                continue  # it is listed already
            correlation = None
            if isinstance(theirs, Explanation):
                correlation = rank_correlation(mine.raw, theirs.raw)
            self.scores.note(sanity_correlation=correlation)
            self.scores.undefined += correlation is None


def explain_each(explainer: Explainer, targets: Sequence[Target]) -> list[Answer]:
    """One map per image.

    Args:
        explainer: of one method.
        targets: a batch.

    Returns:
        In order; a `Failure` for an image that cannot be explained.
    """
    method = explainer.methods[0]
    answers = explainer.batch([(target.name, target.pixels) for target in targets])
    return [
        answer if isinstance(answer, Failure) else answer.explanations[method] for answer in answers
    ]


def _check(threshold: float, overlap: float, *numbers: int) -> None:
    for name, value in (("threshold", threshold), ("overlap", overlap)):
        if not 0 <= value <= 1:
            raise ArtifactNetError(f"judging: {name} must be from 0 to 1, not {value}")
    if min(numbers) < 0:
        raise ArtifactNetError(f"judging: a number of images cannot be {min(numbers)}")
