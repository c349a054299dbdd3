"""Controlled edits of real photographs: artifacts whose place and kind are known exactly.

The paper names controlled editing as a way to dense supervision without annotators
(X-AIGD, Appendix E). Each of the seven categories of the taxonomy has two to five variants;
every edit returns the exact mask of what it changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from artifactnet.data.synthetic.edits import high_level as high
from artifactnet.data.synthetic.edits import low_level as low
from artifactnet.data.synthetic.edits.blend import Change, Proposal, compose
from artifactnet.taxonomy import BY_LABEL, CATEGORIES, Category
from artifactnet.types import ArtifactNetError, UInt8Array

Variant = Callable[[UInt8Array, np.random.Generator, float], Proposal]
MIN_SIDE = 32  # pixels; below this a region is a handful of pixels
_ATTEMPTS = 12
_STRONG = 14.0  # mean absolute difference inside the mask that a person sees at 128 px
_WEAKEST = 4.0  # below this there is nothing to learn from
_SHARES = (0.015, 0.25)  # of the image, allowed for the final mask
_MOST_OVERLAP = 0.3  # of a new mask with the older ones
VARIANTS: dict[int, tuple[Variant, ...]] = {
    1: (low.oversmooth, low.mush, low.tile, low.scramble, low.checkerboard),
    2: (low.swirl, low.ripple, low.melt, low.strips),
    3: (low.pseudo_letters, low.melted_letters),
    4: (low.hue, low.bleed, low.blotch),
    5: (high.duplicate, high.mirror, high.remove),
    6: (high.giant, high.tiny, high.misplaced),
    7: (high.shadow, high.reflection),
}


def apply_edit(
    image: UInt8Array, category: Category, rng: np.random.Generator, severity: float
) -> tuple[UInt8Array, UInt8Array]:
    """Edit one region of a photograph so that it shows an artifact of ``category``.

    Weak results (a blurred sky) are tried again elsewhere, a fixed number of times; then the
    strongest one is taken. The image, (H, W, 3) uint8 with sides >= MIN_SIDE, is not modified;
    ``rng`` is the only source of randomness; ``severity`` is from 0 (subtle) to 1 (glaring).

    Returns:
        The edited image, and the (H, W) uint8 bit-field mask of the changed pixels, never empty.
        Pixels further than blend.MARGIN from the mask are bit-identical to ``image``.

    Raises:
        ArtifactNetError: the image is too small, or so empty (one flat colour) that no edit of this
            category can be seen in it.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ArtifactNetError(
            f"edits need (H, W, 3) uint8 images, got {image.dtype} {image.shape}"
        )
    if min(image.shape[:2]) < MIN_SIDE:
        raise ArtifactNetError(
            f"edits need sides of at least {MIN_SIDE} pixels, got {image.shape[1]}x{image.shape[0]}"
        )
    if not 0.0 <= severity <= 1.0:
        raise ArtifactNetError(f"severity must lie in [0, 1], got {severity}")
    best: Change | None = None
    for _ in range(_ATTEMPTS):
        variants = VARIANTS[category.index]
        variant = variants[int(rng.integers(len(variants)))]
        change = compose(image, variant(image, rng, severity))
        if not _SHARES[0] <= change.mask.mean() <= _SHARES[1]:
            continue
        if best is None or change.strength > best.strength:
            best = change
        if best.strength >= _STRONG:
            break
    if best is None or best.strength < _WEAKEST:
        raise ArtifactNetError(
            f"no {category.label} edit can be seen in this image of {image.shape[1]}x"
            f"{image.shape[0]} pixels: it has too little detail; use another photograph"
        )
    return best.image, best.mask.astype(np.uint8) * np.uint8(category.bit)


def parse_categories(labels: Sequence[str], key: str) -> tuple[Category, ...]:
    """Categories of X-AIGD labels, in the order of the taxonomy; none given means all seven.

    ``key`` says where the labels were written, for the error message.

    Raises:
        ArtifactNetError: a label is unknown.
    """
    for label in labels:
        if label not in BY_LABEL:
            raise ArtifactNetError(f"{key}: unknown {label!r}; known: {', '.join(BY_LABEL)}")
    return tuple(c for c in CATEGORIES if c.label in labels) if labels else CATEGORIES


def choose_categories(
    rng: np.random.Generator, categories: Sequence[Category] = CATEGORIES, most: int = 3
) -> tuple[Category, ...]:
    """One to ``most`` different categories, uniformly, in the order they will be applied.

    Raises:
        ValueError: ``categories`` is empty or ``most`` < 1.
    """
    count = int(rng.integers(1, min(most, len(categories)) + 1))
    return tuple(categories[i] for i in rng.choice(len(categories), count, replace=False))


def edit_photo(
    image: UInt8Array, rng: np.random.Generator, categories: Sequence[Category]
) -> tuple[UInt8Array, UInt8Array]:
    """Apply one edit per given category (see `choose_categories`), severities uniform in [0.5, 1].

    Returns and raises as `apply_edit`; the masks are OR-ed.
    """
    mask = np.zeros(image.shape[:2], np.uint8)
    for category in categories:
        for _ in range(3):  # so that a later edit does not wipe out an earlier one
            edited, new = apply_edit(image, category, rng, float(rng.uniform(0.5, 1.0)))
            if ((new > 0) & (mask > 0)).sum() <= _MOST_OVERLAP * (new > 0).sum():
                break
        image, mask = edited, mask | new
    return image, mask
