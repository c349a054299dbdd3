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
_DIM = 16384  # values that reach a quarter of 16 bits are taken as 16 bits
_EVIDENT = (1023, 4095, 16383)
_STEPS = ((8, 256), (8, 257), (10, 64), (12, 16))  # bits that were scaled to 16, and their step


def to_8_bit(
    values: npt.NDArray[Any], name: str, levels: int | None = None, declared: int | None = None
) -> UInt8Array:
    """Scale integers or floats to 0..255, rounded.

    White is, in this order: ``levels``; what the file declares; 1 for floats up to 1; 65535 where
    it is evident (values that reach a quarter of it, or all are multiples of 257, 256, 64 or 16, as
    8, 10 or 12 bits scaled to 16 are); 1023, 4095 or 16383 where the largest value is within 1/64
    of it; 255 where the largest value is in the upper half of that. What is not 65535 is reported.
    8-bit and boolean values have no choice, so ``levels`` does not apply to them.

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
    if values.dtype.kind == "f":
        if high <= 1:
            return 1
        if (values != np.floor(values)).any():
            raise ArtifactNetError(
                f"{name}: its float pixels go up to {high:g}, which is no known range; {_ADVICE}"
            )
    if high > _FULL:
        raise ArtifactNetError(
            f"{name}: its pixels go up to {high:g}, which is no known range; {_ADVICE}"
        )
    if high >= _DIM:
        return _FULL
    reached = next((white for white in _EVIDENT if _reaches(high, white)), None)
    for bits, step in _STEPS:
        known = reached is not None and bits > 8  # 8 bits scaled to 12 are multiples of 16, too
        if not known and high >= 2**bits and not (values % step).any():
            return _FULL
    if reached is None and 127 < high <= 255:
        reached = 255  # as 16 bits it would be black
    if reached is None:
        likely = next((f"{white} or " for white in (255, *_EVIDENT) if high <= white), "")
        raise ArtifactNetError(
            f"{name}: its pixels go up to {high:g} only, so white may be {likely}{_FULL} (a dark "
            f"image); {_ADVICE}"
        )
    notice(
        f"images of more than 8 bits were read with {reached} as white, from their largest value",
        f"{name}: its pixels go up to {high:g} only, so {reached} counts as white; if that is "
        "wrong, state it with --levels (data.levels in training)",
    )
    return reached


def significant_white(values: npt.NDArray[np.uint16], bits: int) -> int:
    """White of a PNG of 16 bits that declares how many of them are significant.

    The standard wants values scaled to 16 bits; many writers store them unscaled.
    """
    white, high = 2**bits - 1, int(values.max())
    if high > white:
        return _FULL
    if _reaches(high, white):
        return white
    scaled = np.rint(np.rint(values * (white / _FULL)) * (_FULL / white))
    return _FULL if ((values % 2 ** (16 - bits) == 0) | (values == scaled)).all() else white


def _reaches(high: float, white: int) -> bool:
    return 0 <= 64 * (white - high) < white
