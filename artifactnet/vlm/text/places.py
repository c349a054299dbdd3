"""Where something is in an image, in words: a grid of three by three."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PLACES = (
    *("upper left", "top", "upper right"),
    *("left", "center", "right"),
    *("lower left", "bottom", "lower right"),
)
# The same in words for a language model to learn. The first word is the row, the same for its three
# places and for no other: greedy decoding chooses a row by all of its places, then a column. With
# rows of two first words ("upper left" beside "top") it named few places but those of one word.
ROW_FIRST = (
    *("top left", "top middle", "top right"),
    *("middle left", "middle", "middle right"),
    *("bottom left", "bottom middle", "bottom right"),
)
_NAMED = 0.25  # share of a mask that a place must hold to be named


def main_places(marked: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    """The places that hold a quarter or more of a (H, W) mask, the fullest first.

    None if no place does: then the mask is spread over the image, or is empty.
    """
    y, x = np.nonzero(marked)
    if not len(y):
        return ()
    rows, columns = (np.arange(length) * 3 // length for length in marked.shape)
    parts = np.bincount(rows[y] * 3 + columns[x], minlength=9) / len(y)
    ordered = sorted(range(9), key=lambda place: -parts[place])
    return tuple(PLACES[place] for place in ordered if parts[place] >= _NAMED)
