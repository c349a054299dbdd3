"""What a server says about its model."""

from __future__ import annotations

from importlib.metadata import version

from artifactnet.inference.backends.exported import SUFFIXES, ExportedModel
from artifactnet.inference.base import BasePredictor
from artifactnet.inference.fingerprint import model_fingerprint
from artifactnet.inference.predictor import Predictor
from artifactnet.models.hub import is_address
from artifactnet.models.packaged import list_packaged
from artifactnet.serving.schema import ModelAnswer


def describe_model(
    predictor: BasePredictor, source: str, backend: str | None = None
) -> ModelAnswer:
    """Describe a model for ``/v1/models``.

    Args:
        predictor: of any kind.
        source: what it was loaded from. Of a path, only the last two parts are told.
        backend: that was asked for; None: what the file is made for.
    """
    model = getattr(predictor, "model", None)
    weights = None if model is None else next(model.parameters(), None)
    heatmap, suffix = predictor.has_heatmap, source[source.rfind(".") :]
    if isinstance(predictor, Predictor):
        parts = ("has_heatmap", "has_attention", "has_segmentation")
        heatmap = any(getattr(predictor.model, part) for part in parts)
    exported = isinstance(model, ExportedModel)
    return ModelAnswer(
        name=_public_name(source),
        kind=type(predictor).__name__,
        backend=(backend or SUFFIXES[suffix]) if exported else "torch",
        device="cpu" if weights is None else str(weights.device),
        version=version("artifactnet"),
        fingerprint=model_fingerprint(predictor) if isinstance(predictor, Predictor) else None,
        threshold=predictor.threshold,
        limits=predictor.limits,
        heatmap=heatmap,
        instances=predictor.has_segmentation,
        warnings=list(predictor.warnings),
    )


def _public_name(source: str) -> str:
    if source in list_packaged() or is_address(source):
        return source
    return "/".join(source.replace("\\", "/").rstrip("/").split("/")[-2:])
