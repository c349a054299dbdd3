"""Pixels of more than 8 bits as 8 bits: what value is white.

Files store 10, 12 or 14 bits in 16, and 8 bits in 32, and do not say so. Divided by the range of
the container, such an image would be nearly black without anybody noticing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from artifactnet.data.notices import notice
from artifactnet.types import ArtifactNetError, UInt8Array

_FULL = 65535
_DIM = 16384  # a 16-bit image that reaches a quarter of white is taken as what it says it is
_EVIDENT = (255, 1023, 4095)  # of 16 bits, where the largest value is in the upper half of one
_EVIDENT_WIDE = (255, 1023, 4095, 16383, _FULL)  # of 32 and 64 bits, which nobody fills


def to_8_bit(
    values: npt.NDArray[Any], name: str, levels: int | None = None, declared: int | None = None
) -> UInt8Array:
    """Scale integers or floats to 0..255, rounded.

    White is, in this order: ``levels``; what the file declares; 1 for floats up to 1; 65535 for
    16-bit values that reach a quarter of it; otherwise 255, 1023 or 4095 (of 32 bits also 16383 and
    65535) where the largest value lies in the upper half of that range, which is reported. 8-bit
    and boolean values have no choice, so ``levels`` does not apply to them.

    Args:
        values: of any shape, with at least one element.
        name: of the image, for errors.
        levels: the value of white, as the user knows it.
        declared: the value of white, as the file says.

    Raises:
        ArtifactNetError: a value is below 0, above white, or not finite; or what is white is not
            evident.
    """
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    low, high = values.min().item(), values.max().item()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ArtifactNetError(f"{name}: it has pixels that are NaN or infinite; replace them")
    if low < 0:
        raise ArtifactNetError(
            f"{name}: it has pixels below 0 (down to {low:g}), which have no known range; shift "
            "them so that black is 0"
        )
    white = levels if levels is not None else declared
    if white is None:
        white = _evident_white(values, high, name)
    if high > white:
        raise ArtifactNetError(
            f"{name}: its pixels go up to {high:g}, above the white of {white}; {_ADVICE}"
        )
    if values.dtype.kind == "f" or high > _FULL:
        return np.rint(values * (255.0 / white)).astype(np.uint8)
    steps = np.arange(int(high) + 1, dtype=np.int64)
    return ((steps * 510 + white) // (2 * white)).astype(np.uint8)[values]


_ADVICE = (
    "state the value of white with --levels N (data.levels=N in training, levels=N in Python): "
    "255, 1023, 4095, 65535, ..."
)


def _evident_white(values: npt.NDArray[Any], high: float, name: str) -> int:
    """White of an image whose file does not say it.

    Raises:
        ArtifactNetError: it is not evident.
    """
    if high == 0:
        return 1  # black whatever is white
    sixteen = values.dtype == np.uint16
    if values.dtype.kind == "f":
        if high <= 1:
            return 1
        if (values != np.floor(values)).any():
            raise ArtifactNetError(
                f"{name}: its float pixels go up to {high:g}, which is no known range; {_ADVICE}"
            )
    if sixteen and high >= _DIM:
        return _FULL
    for white in _EVIDENT if sixteen else _EVIDENT_WIDE:
        if white // 2 < high <= white:
            kind = "16-bit" if sixteen else "32-bit"
            notice(
                f"{kind} images were read with {white} as white, from their largest value",
                f"{name}: its {kind} pixels go up to {high:g} only, so {white} counts as white; if "
                "that is wrong, state it with --levels (data.levels in training)",
            )
            return white
    raise ArtifactNetError(
        f"{name}: its pixels go up to {high:g}, which is no known range; {_ADVICE}"
    )
