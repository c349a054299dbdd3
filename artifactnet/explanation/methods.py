"""The methods of explanation: their names, what they need, what they give."""

from __future__ import annotations

from collections.abc import Iterable

from artifactnet.explanation.attention import ATTENTION_METHODS, why_no_attention_map
from artifactnet.explanation.cam import CAM_METHODS
from artifactnet.explanation.detector import Detector, OwnDetector
from artifactnet.explanation.layers import target_layer
from artifactnet.types import ArtifactNetError

SLIDING = "sliding_patch"
SEGMENTATION = "segmentation"
HEATMAP = "heatmap"
PREDICTED = "predicted_heatmap"
_TILES = "its network sees a thumbnail and tiles (model.heatmap.head=mapper), never the whole image"

# name -> what it shows
METHODS: dict[str, str] = {
    **CAM_METHODS,
    **ATTENTION_METHODS,
    SLIDING: "Probability of being fake of each patch, predicted on its own",
    SEGMENTATION: "Probability of an artifact, from the model's segmentation head",
    HEATMAP: "The model's own attention or activation map, as it was trained to be",
    PREDICTED: "Where the model itself says that the image looks wrong, from its heatmap head",
}


def scale_of(method: str) -> str:
    """How a method's map is brought into [0, 1], see `artifactnet.types.Explanation`."""
    if method == HEATMAP:
        return "model"
    return "probability" if method in (SLIDING, SEGMENTATION, PREDICTED) else "minmax"


def why_not(detector: Detector, methods: Iterable[str]) -> dict[str, str | None]:
    """For each method why it cannot explain a detector, or None where it can.

    Raises:
        ArtifactNetError: there is no such method.
    """
    methods = list(methods)
    for method in methods:
        if method not in METHODS:
            raise ArtifactNetError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    # one answer for all activation maps: looking for a layer costs a forward pass
    no_layer = _why_no_layer(detector) if set(methods) & set(CAM_METHODS) else None
    return {m: no_layer if m in CAM_METHODS else _why_not(detector, m) for m in methods}


def default_method(detector: Detector) -> str:
    """The paper's choice (X-AIGD Sec. 4): relevance maps of ViTs, smoothed Grad-CAM of others.

    A model that sees an image in tiles has neither: ``predicted_heatmap`` is the default.
    """
    if _in_tiles(detector):
        return PREDICTED
    return "grad_cam_smooth" if why_no_attention_map(detector.net) else "relevance"


def available(detector: Detector) -> list[str]:
    """All methods that support a detector, in the order of `METHODS`."""
    return [method for method, reason in why_not(detector, METHODS).items() if reason is None]


def _in_tiles(detector: Detector) -> bool:
    return isinstance(detector, OwnDetector) and detector.model.config.heatmap.head == "mapper"


def _why_no_layer(detector: Detector) -> str | None:
    if _in_tiles(detector):
        return _TILES
    try:
        target_layer(detector)
    except ArtifactNetError as error:
        return str(error)
    return None


def _why_not(detector: Detector, method: str) -> str | None:
    """The reason for a method that makes no activation maps."""
    if method in ATTENTION_METHODS:
        return _TILES if _in_tiles(detector) else why_no_attention_map(detector.net)
    if method == SLIDING:
        return None
    if not isinstance(detector, OwnDetector):
        return "only models of ArtifactNet have one"
    if method == HEATMAP:
        return detector.model.no_attention
    if method == PREDICTED:
        return None if detector.model.has_heatmap else "the model has no heatmap head"
    return None if detector.model.has_segmentation else "the model has no segmentation head"
