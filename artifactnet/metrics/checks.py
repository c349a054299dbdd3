"""Input checks that several metrics share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from artifactnet.types import ArtifactNetError

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

DIVERGED = "the model's weights are broken or its training diverged; use an earlier checkpoint"


def require_finite(values: Tensor, what: str) -> None:
    """Refuse a model's output (``what``, e.g. ``"a heatmap"``) that is not finite.

    Raises:
        ArtifactNetError: NaN or infinite values.
    """
    if not bool(values.isfinite().all()):
        raise ArtifactNetError(f"{what} is not finite: {DIVERGED}")


def checked_answers(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[BoolArray, Float64Array]:
    """Which images are fake, and their probabilities in float64.

    Args:
        labels: (N,) 0 real, 1 fake.
        probabilities: (N,) of being fake.

    Raises:
        ValueError: shapes differ, or a label is neither 0 nor 1.
        ArtifactNetError: a probability is not a number in [0, 1].
    """
    classes, chances = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if classes.ndim != 1 or classes.shape != chances.shape:
        raise ValueError(
            "need equally many labels and probabilities, got shapes "
            f"{classes.shape} and {chances.shape}"
        )
    if not np.isin(classes, (0, 1)).all():
        raise ValueError("labels must be 0 (real) or 1 (fake)")
    bad = int((~((chances >= 0) & (chances <= 1))).sum())  # NaN fails both comparisons
    if bad:
        raise ArtifactNetError(
            f"{bad} of {len(chances)} probabilities are not numbers in [0, 1]: {DIVERGED}"
        )
    return classes == 1, chances
