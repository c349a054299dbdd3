"""The X-AIGD taxonomy of perceptual artifacts: seven categories on three levels.

The order is the class index of the benchmark (1..7, 0 is background). Categories may overlap, so
masks travel as a ``uint8`` bit field in which **bit c stands for category c**; bit 0 stands for an
artifact whose category nobody stated (a plain 0/255 mask). Source: X-AIGD, Section 3.2 and Fig. 1.
"""

from __future__ import annotations

from dataclasses import dataclass

UNCATEGORIZED_BIT = 1 << 0
# what a gray level of a mask may mean, beside the label of a category; see `data.mask_levels`
ARTIFACT, NO_ARTIFACT = "artifact", "none"
UNCATEGORIZED = "uncategorized"  # label of what has that bit alone
UNCATEGORIZED_COLOR = (255, 0, 255)

# the benchmark's tasks, which name its tables and folder layouts
AGNOSTIC = "category-agnostic"  # root/{generator}/{uid}/*.png
FINE_GRAINED = "fine-grained"  # root/{generator}/{category}/{uid}/*.png
TASKS = (AGNOSTIC, FINE_GRAINED)
# columns of its table of predicted instances; the box is half-open
INSTANCE_COLUMNS = ("generator", "uid", "category", "x_min", "y_min", "x_max", "y_max")


@dataclass(frozen=True, slots=True)
class Category:
    """One artifact category.

    Attributes:
        index: class index 1..7, also the bit number in masks.
        label: the name used in X-AIGD files, e.g. ``low-level-edge_shape``.
        short: the name used in tables, e.g. ``edges & shapes``.
        level: ``low``, ``high`` or ``cognitive``.
        color: sRGB colour for pictures (Okabe-Ito palette, colour-blind safe).
    """

    index: int
    label: str
    short: str
    level: str
    color: tuple[int, int, int]

    @property
    def bit(self) -> int:
        """Value of this category in a bit-field mask."""
        return 1 << self.index


CATEGORIES: tuple[Category, ...] = (
    Category(1, "low-level-texture", "textures", "low", (230, 159, 0)),
    Category(2, "low-level-edge_shape", "edges & shapes", "low", (86, 180, 233)),
    Category(3, "low-level-symbol", "symbols", "low", (0, 158, 115)),
    Category(4, "low-level-color", "color", "low", (240, 228, 66)),
    Category(5, "high-level-semantics", "semantics", "high", (0, 114, 178)),
    Category(6, "cognitive-level-commonsense", "commonsense", "cognitive", (213, 94, 0)),
    Category(7, "cognitive-level-physics", "physics", "cognitive", (204, 121, 167)),
)
# what may be wrong with an image as a whole, in answers, data and tables (FakeXplainer, Table 7)
TAGS = (
    "structure/attribute error",
    "wrong texture",
    "artistic style",
    "other anomalies",
    "unrecognizable objects",
    "perspective errors",
)
# the paper's other names for them (FakeXplainer, A.2), accepted where tags are read
TAG_ALIASES = {
    "unknown objects": "unrecognizable objects",
    "texture errors": "wrong texture",
    "artistic styles": "artistic style",
    "structure/attribute errors": "structure/attribute error",
}
BY_LABEL: dict[str, Category] = {category.label: category for category in CATEGORIES}


def category_by_label(label: str) -> Category:
    """Category of an X-AIGD label.

    Raises:
        ValueError: the label is not one of the seven; the message lists them.
    """
    try:
        return BY_LABEL[label]
    except KeyError:
        known = ", ".join(BY_LABEL)
        raise ValueError(f"unknown artifact category {label!r:.80}; known: {known}") from None
