"""Images to try: photographs of the package, and the same with regions repainted by a network.

Nobody trained the packaged models on them: they are of the splits ``val`` and ``test``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artifactnet.data.images import decode_image
from artifactnet.data.sources.demo import PHOTOGRAPHS
from artifactnet.types import UInt8Array


@dataclass(frozen=True, slots=True)
class Example:
    """One image.

    Attributes:
        caption: what it is, for people.
        file: relative to the packaged photographs, whose LICENCES.csv names its author.
        is_fake: whether a network repainted a part of it.
    """

    caption: str
    file: str
    is_fake: bool

    @property
    def path(self) -> Path:
        """The file."""
        return PHOTOGRAPHS / self.file


EXAMPLES = (
    Example("Lighthouse, photograph", "val/real/kodak_031.jpg", False),
    Example("Lighthouse, partly repainted", "val/fake/kodak_031.jpg", True),
    Example("Vegetables, photograph", "test/real/grocery_106.jpg", False),
    Example("Vegetables, partly repainted", "test/fake/grocery_106.jpg", True),
    Example("Carton, partly repainted", "test/fake/grocery_131.jpg", True),
    Example("Caps, partly repainted", "test/fake/kodak_026.jpg", True),
)


def read_example(example: Example) -> UInt8Array:
    """Its pixels, (H, W, 3) uint8 sRGB.

    Raises:
        ArtifactNetError: the file is missing from this installation, or damaged.
    """
    return decode_image(example.path, f"example {example.file}")
