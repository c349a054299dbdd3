"""What the name of a folder says about the images in it: their split, their class, or masks.

Case does not matter, and neither do spaces, dots and hyphens in place of underscores.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

SPLITS = ("train", "val", "test")
CLASSES = ("real", "fake")  # index = label

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
# words of which nobody can say which split they mean
_UNCLEAR_SPLITS = ("eval", "evaluation", "holdout", "heldout", "trainval")
_EXPLICIT = ({"real", "reals", "real_images"}, {"fake", "fakes", "fake_images"})
# names of public data sets (GenImage: ai and nature) that may also be the name of a generator
_OTHER = (
    {"nature", "natural", "natural_images", "authentic", "genuine"},
    {
        *("ai", "ai_images", "ai_generated", "ai_generated_images"),
        *("generated", "generated_images", "synthetic", "synthetic_images"),
    },
)
_MASKS = (
    *("masks", "mask", "gts", "gt"),
    *("ground_truths", "ground_truth", "groundtruths", "groundtruth"),
)
_CONTAINERS = {"images", "image", "imgs", "img"}
_MASK_WORDS = r"(?:masks?|gts?|ground_?truth|seg|segmentation|labels?)"
_MASK_STEM = re.compile(
    rf"^{_MASK_WORDS}[_\-. ](?=.)|(?<=.)(?:[_\-. ]{_MASK_WORDS}|mask)$", re.IGNORECASE
)

SPLIT_NAMES = "split folders: train, training, val, valid, validation, dev, test, testing"


def normalized(name: str) -> str:
    """The name in lower case, with ``_`` for spaces, dots and hyphens."""
    return re.sub(r"[\s.\-_]+", "_", name.strip()).casefold()


def split_of(name: str) -> str | None:
    """``train``, ``val`` or ``test`` if the name means one of them, else None."""
    return _SPLIT_NAMES.get(normalized(name))


def split_like(name: str, typos: bool = False) -> str | None:
    """The split, or the unclear word, that a name contains without being a split's; else None.

    ``train2017`` and ``test_set`` contain one; with ``typos`` also ``tset`` counts.
    """
    if split_of(name) is not None:
        return None
    words = re.findall(r"[^\W\d_]+", normalized(name))
    for word in words:
        word = word.removesuffix("set") or word
        if word in _UNCLEAR_SPLITS:
            return word
        if word in _SPLIT_NAMES:
            return _SPLIT_NAMES[word]
    near = get_close_matches("".join(words), _SPLIT_NAMES, n=1, cutoff=0.75) if typos else []
    return _SPLIT_NAMES[near[0]] if near else None


def label_of(name: str) -> int | None:
    """Label (0 real, 1 fake) of a class folder's name, else None."""
    label = explicit_label_of(name)
    plain = _without_number(name)
    return next((k for k in (0, 1) if plain in _OTHER[k]), None) if label is None else label


def explicit_label_of(name: str) -> int | None:
    """As `label_of`, but only if the name says ``real`` or ``fake``."""
    plain = _without_number(name)
    return next((k for k in (0, 1) if plain in _EXPLICIT[k]), None)


def mask_scope(name: str) -> tuple[str, ...] | None:
    """What a mask folder's name says beside that: its split or class; None if it holds no masks.

    ``masks`` -> (), ``fake_masks`` -> ("fake",), ``masks-test`` -> ("test",).
    """
    plain = normalized(name)
    for word in _MASKS:
        if plain == word:
            return ()
        for rest in (plain.removeprefix(f"{word}_"), plain.removesuffix(f"_{word}")):
            if rest != plain and (meaning := meaning_of(rest)):
                return (meaning,)
            if rest != plain and rest in (*_MASKS, *_CONTAINERS, "png", "binary"):
                return ()
    return None


def meaning_of(name: str) -> str | None:
    """``train``, ``val``, ``test``, ``real`` or ``fake`` if the name means one, else None."""
    label = label_of(name)
    return split_of(name) if label is None else CLASSES[label]


def is_container(name: str) -> bool:
    """Whether a folder's name says no more than that images are in it."""
    return normalized(name) in _CONTAINERS


def stem_of_mask(stem: str) -> str:
    """File stem of the image that a mask of this stem belongs to: ``7_mask`` -> ``7``."""
    return _MASK_STEM.sub("", stem, count=1)


def _without_number(name: str) -> str:
    return re.sub(r"^\d+_", "", normalized(name))
