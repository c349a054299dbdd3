"""Temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks", Sec. 4.2).

One number divides every logit. It changes no order, hence neither AUC nor the verdict at 0.5, and
makes probabilities as confident as the detector is right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from artifactnet.metrics.calibration import balanced_weights
from artifactnet.metrics.checks import BoolArray, Float64Array
from artifactnet.types import ArtifactNetError

_STEPS = 200  # of the bisection, which ends where floats do


def negative_log_likelihood(labels: npt.ArrayLike, logits: npt.ArrayLike) -> float:
    """Mean cross-entropy in nats, both classes weighing the same as a whole.

    Args:
        labels: (N,) 0 real, 1 fake.
        logits: (N,) of fake; finite.

    Raises:
        ValueError: see `fit_temperature`.
    """
    fake, values = _checked(labels, logits)
    losses = np.logaddexp(0, np.where(fake, -values, values))
    return float(balanced_weights(fake) @ losses)


def fit_temperature(labels: npt.ArrayLike, logits: npt.ArrayLike) -> float | None:
    """The temperature T > 0 that minimises `negative_log_likelihood` of ``logits / T``.

    The likelihood is convex in 1/T, so its derivative has at most one zero, which is bracketed and
    bisected.

    Args:
        labels: (N,) 0 real, 1 fake; both occur.
        logits: (N,) of fake, before any temperature; finite.

    Returns:
        T; None where no T is best, because every logit has the right sign (or is 0) and a smaller
        one is always better.

    Raises:
        ValueError: shapes differ, a label is neither 0 nor 1, a class is missing, or a logit is not
            finite.
        ArtifactNetError: photographs have logits as high as fakes on average, so that no positive T
            beats a constant probability of 1/2.
    """
    fake, values = _checked(labels, logits)
    signed = np.where(fake, values, -values)
    if (signed >= 0).all() and signed.any():
        return None
    weighted = balanced_weights(fake) * signed

    def rise(scale: float) -> float:
        """Derivative of the likelihood's negative logarithm in ``scale`` = 1/T."""
        return -float(weighted @ np.exp(-np.logaddexp(0, scale * signed)))

    if rise(0.0) >= 0:
        means = float(values[fake].mean()), float(values[~fake].mean())
        raise ArtifactNetError(
            f"the mean logit of fakes ({means[0]:.3g}) is not above that of photographs "
            f"({means[1]:.3g}): the detector does not tell them apart, and no temperature helps"
        )
    low, high = 0.0, 1 / float(np.abs(signed).max())
    while rise(high) < 0:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if rise(middle) < 0 else (low, middle)
    return 1 / high


def _checked(labels: npt.ArrayLike, logits: npt.ArrayLike) -> tuple[BoolArray, Float64Array]:
    classes, values = np.asarray(labels), np.asarray(logits, dtype=np.float64)
    if classes.ndim != 1 or classes.shape != values.shape:
        raise ValueError(
            f"need equally many labels and logits, got shapes {classes.shape} and {values.shape}"
        )
    if not np.isin(classes, (0, 1)).all() or len(np.unique(classes)) < 2:
        raise ValueError("labels must be 0 (real) and 1 (fake), and both must occur")
    if not np.isfinite(values).all():
        raise ValueError("logits must be finite")
    return classes == 1, values
