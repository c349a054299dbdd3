"""How much a prediction depends on the way its image was saved: a few re-encodings are predicted.

The re-encodings are the same at every call: JPEG of the qualities that cameras, messengers and web
sites use, and a slightly smaller copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from artifactnet.data.damage import as_jpeg
from artifactnet.data.geometry import resample
from artifactnet.inference.inputs import Failure
from artifactnet.types import Prediction, Stability, UInt8Array

AS_IS = "as is"


def _resized(scale: float, pixels: UInt8Array) -> UInt8Array:
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return resample(pixels, (height, width))


# each from (H, W, 3) pixels to others, or an ArtifactNetError
VARIANTS: dict[str, Callable[[UInt8Array], UInt8Array]] = {
    "JPEG 92": partial(as_jpeg, quality=92),
    "JPEG 75": partial(as_jpeg, quality=75),
    "JPEG 60": partial(as_jpeg, quality=60),
    "resized to 90 %": partial(_resized, 0.9),
}


def add_stability(answer: Prediction, variants: Mapping[str, Prediction | Failure]) -> None:
    """Write into a prediction how those of its image's re-encodings differ from it.

    Sets ``stability``, and adds a warning where the verdict flips, and one for each re-encoding
    without a prediction.
    """
    found = {AS_IS: answer}
    for name, variant in variants.items():
        if isinstance(variant, Failure):
            answer.warnings += (f"stability: {name} could not be predicted: {variant.reason}",)
        else:
            found[name] = variant
    probabilities = {name: one.probability for name, one in found.items()}
    answer.stability = Stability(probabilities, len({one.verdict for one in found.values()}) > 1)
    if answer.stability.unstable:
        low, high = (choose(found, key=lambda n: found[n].probability) for choose in (min, max))
        answer.warnings += (
            f"unstable: the verdict flips between {found[low].verdict} "
            f"({found[low].probability:.3f}, {low}) and {found[high].verdict} "
            f"({found[high].probability:.3f}, {high}); do not rely on it",
        )
