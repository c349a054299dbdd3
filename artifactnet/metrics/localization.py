"""Does a heatmap point at the artifacts? Threshold-free scores of one image.

All of them depend on the order or the share of values only, so a map that was rescaled per image
is scored as fairly as a probability. A constant map gets the score of chance: the share of the
image that the artifacts cover.

They take a finite heatmap (H, W) and a mask (H, W) that is not zero where an artifact is, and raise
a ValueError for shapes that differ, no pixels, and values that are not finite.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from artifactnet.metrics.checks import BoolArray, Float64Array


def pointing_game(heatmap: npt.NDArray[Any], mask: npt.NDArray[Any]) -> float:
    """Whether the maximum of the map lies on an artifact (Zhang et al. 2018), without margin.

    1 or 0; where several pixels share the maximum, the share of them on an artifact.
    """
    values, inside = _check(heatmap, mask)
    return float(inside[values == values.max()].mean())


def mass_inside(heatmap: npt.NDArray[Any], mask: npt.NDArray[Any]) -> float:
    """Share of the map's sum that lies on artifacts; 0 for a map that is zero everywhere.

    Raises:
        ValueError: also if a value is negative.
    """
    values, inside = _check(heatmap, mask)
    if values.min() < 0:
        raise ValueError("a heatmap with negative values has no mass")
    peak = float(values.max())
    if peak == 0:
        return 0.0
    values = values / peak  # a sum of huge or tiny values would overflow or vanish
    within = float(values[inside].sum())
    return within / (within + float(values[~inside].sum()))


def pixel_average_precision(heatmap: npt.NDArray[Any], mask: npt.NDArray[Any]) -> float | None:
    """Area under the precision-recall curve of the pixels, as a step function (scikit-learn's).

    In (0, 1]; None where the mask is empty or covers the image.
    """
    values, inside = _check(heatmap, mask)
    if inside.all() or not inside.any():
        return None
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(inside.ravel(), values.ravel()))


def _check(heatmap: npt.NDArray[Any], mask: npt.NDArray[Any]) -> tuple[Float64Array, BoolArray]:
    """The map in float64 and where the artifacts are."""
    if heatmap.ndim != 2 or heatmap.shape != mask.shape or not heatmap.size:
        raise ValueError(
            f"need a heatmap and a mask of one size (H, W), got {heatmap.shape} and {mask.shape}"
        )
    values = heatmap.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("the heatmap holds values that are not finite")
    return values, mask != 0
