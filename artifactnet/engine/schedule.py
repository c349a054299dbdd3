"""Learning rate over the steps of a run, as a pure function."""

from __future__ import annotations

import math


def lr_factor(
    step: int, total: int, *, warmup: float, schedule: str, min_ratio: float = 0.0
) -> float:
    """What the base learning rate is multiplied with at an optimizer step.

    Rises linearly over the first ``round(warmup * total)`` steps (never starting at 0, so that
    no step is wasted), then stays (``constant``) or falls to ``min_ratio``, which the last step
    reaches: along half a cosine, or along a line (mmsegmentation's ``poly`` of power 1).

    Args:
        step: 0-based optimizer step; steps beyond the last keep the last one's factor.
        total: optimizer steps of the whole run, at least 1.
        warmup: share of all steps in [0, 1].
        schedule: ``cosine``, ``linear`` or ``constant``.
        min_ratio: factor at the last step unless ``constant``, in [0, 1].

    Returns:
        The factor, in (0, 1] for ``min_ratio`` > 0.

    Raises:
        ValueError: unknown schedule, or no steps.
    """
    if schedule not in ("cosine", "linear", "constant"):
        raise ValueError(f"schedule must be cosine, linear or constant, not {schedule!r}")
    if total < 1:
        raise ValueError(f"a run has at least one step, not {total}")
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - rising) / max(1, total - 1 - rising))
    left = 1 - progress if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return min_ratio + (1 - min_ratio) * left
