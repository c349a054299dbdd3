"""Chains of thought without an author: made from an annotation, or one fixed text for any image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from artifactnet.taxonomy import UNCATEGORIZED, UNCATEGORIZED_BIT
from artifactnet.types import Annotation, Sample, UInt8Array
from artifactnet.vlm.text.chain_of_thought import MAP, SCORE, ChainOfThought, build_cot
from artifactnet.vlm.text.facts import marked_regions
from artifactnet.vlm.text.places import PLACES, ROW_FIRST, main_places

# Read in place of a generated text; it says nothing about the image.
TEMPLATE = build_cot(
    ChainOfThought(
        "An image whose plausibility is to be judged.",
        "Every region that looks implausible.",
        "The regions named above are judged by how implausible they look.",
    )
)

# name of a category, and what is wrong where it is marked
_WORDS = {
    "low-level-texture": ("Textures", "Surfaces lack the texture of their material."),
    "low-level-edge_shape": ("Edges and shapes", "Outlines are broken, blurred or deformed."),
    "low-level-symbol": ("Symbols", "Letters or signs are garbled."),
    "low-level-color": ("Colors", "Colors are unnatural or bleed into their surroundings."),
    "high-level-semantics": ("Semantics", "Parts of an object are missing, misplaced or too many."),
    "cognitive-level-commonsense": ("Common sense", "The scene contradicts common sense."),
    "cognitive-level-physics": ("Physics", "Light, shadows or supports contradict physics."),
    UNCATEGORIZED: ("Artifacts", "Something there looks implausible."),
}
# one word for what a region shows, of which no two are alike; all are in the usual vocabularies
CLEAN_WORD = "clean"
CATEGORY_WORDS = {
    "low-level-texture": "texture",
    "low-level-edge_shape": "shape",
    "low-level-symbol": "symbols",
    "low-level-color": "color",
    "high-level-semantics": "parts",
    "cognitive-level-commonsense": "scale",
    "cognitive-level-physics": "shadow",
    UNCATEGORIZED: "artificial",
}
_MOST = 0.5  # share of the image that counts as most of it
_MARKED = 0.5  # of a heatmap's own maximum, without a mask


def describe_annotation(sample: Sample) -> str:
    """A chain of thought made from the annotation of an image.

    Each category in the mask is named with the places that hold most of it, in a grid of three by
    three, and its share of the image; see `marked_categories`. An image annotated as clean is
    described as such; one that is not annotated gets `TEMPLATE`.
    """
    if sample.record.annotation is Annotation.NONE:
        return TEMPLATE
    found = _found(sample)
    regions = [f"- {_WORDS[label][0]}: {_where(marked)}." for label, marked in found]
    issues = [f"- {_WORDS[label][0]}: {_WORDS[label][1]}" for label, _ in found]
    return build_cot(
        ChainOfThought(
            _kind(sample),
            "\n".join(regions) or "No region looks implausible.",
            "\n".join(issues) or "Nothing is wrong with the image.",
        )
    )


def answer_shortly(sample: Sample) -> str:
    """What is wrong with an image, and where, in a few words: ``texture, top left``.

    For each of the `marked_categories` its word and the place that holds most of it; ``clean``
    where there is none. The marks follow. It is no chain of thought: a first stage, in which no
    other words distract from those that have to be read from the image.
    """
    names = dict(zip(PLACES, ROW_FIRST, strict=True))
    found = []
    for label, marked in _found(sample):
        places = main_places(marked)
        where = names[places[0]] if places else "spread"
        found.append(f"{CATEGORY_WORDS[label]}, {where}")
    return f"{'; '.join(found) or CLEAN_WORD} {MAP}{SCORE}"


def marked_categories(sample: Sample) -> UInt8Array | None:
    """(H, W) bit field of the categories marked in an image; None if it is not annotated.

    Without a mask, or with an empty one, the heatmap from half of its own maximum on marks an
    artifact of no category.
    """
    if sample.record.annotation is Annotation.NONE:
        return None
    mask, heatmap = sample.mask, sample.heatmap
    if mask is None:
        mask = np.zeros(sample.image.shape[:2], np.uint8)
    if not mask.any() and heatmap is not None and heatmap.any():
        marked = heatmap >= _MARKED * heatmap.max()
        return marked.astype(np.uint8) * np.uint8(UNCATEGORIZED_BIT)
    return mask


def _kind(sample: Sample) -> str:
    height, width = sample.image.shape[:2]
    form = "wide" if width > 1.2 * height else "tall" if height > 1.2 * width else "square"
    return f"A {form} {'generated image' if sample.record.label else 'photograph'}."


def _found(sample: Sample) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Label and (H, W) mask of each category present, in the order of the taxonomy."""
    mask = marked_categories(sample)
    if mask is None:
        return []
    regions = dict(marked_regions(mask))
    return [(label, regions[label]) for label in _WORDS if label in regions]


def _where(marked: npt.NDArray[np.bool_]) -> str:
    """Places and share of a mask, e.g. ``upper left, top; 3% of the image``."""
    share = float(marked.mean())
    percent = f"{100 * share:.0f}%" if share >= 0.01 else "less than 1%"
    if share >= _MOST:
        return f"most of the image; {percent} of it"
    return f"{', '.join(main_places(marked)) or 'spread over the image'}; {percent} of the image"
