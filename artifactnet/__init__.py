"""ArtifactNet: detect AI-generated images by looking at perceptual artifacts.

Everything below is loaded on first use, so that ``import artifactnet`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from artifactnet.api import train
    from artifactnet.config import Config
    from artifactnet.config import load as load_config
    from artifactnet.data.synthetic.synthesize import synthesize
    from artifactnet.evaluation.evaluate import evaluate
    from artifactnet.explanation.detector import Classifier
    from artifactnet.explanation.explainer import explain
    from artifactnet.inference.load import load_model
    from artifactnet.inference.predictor import Predictor
    from artifactnet.models.artifact_net import ArtifactNet
    from artifactnet.taxonomy import CATEGORIES
    from artifactnet.types import Annotation, ArtifactNetError, Explanation, Prediction

__version__ = "0.1.0"

__all__ = [
    "CATEGORIES",
    "Annotation",
    "ArtifactNet",
    "ArtifactNetError",
    "Classifier",
    "Config",
    "Explanation",
    "Prediction",
    "Predictor",
    "__version__",
    "evaluate",
    "explain",
    "load_config",
    "load_model",
    "synthesize",
    "train",
]

# public name -> (module, name in that module)
_HOME = {
    "CATEGORIES": ("artifactnet.taxonomy", "CATEGORIES"),
    "Annotation": ("artifactnet.types", "Annotation"),
    "ArtifactNet": ("artifactnet.models.artifact_net", "ArtifactNet"),
    "ArtifactNetError": ("artifactnet.types", "ArtifactNetError"),
    "Classifier": ("artifactnet.explanation.detector", "Classifier"),
    "Config": ("artifactnet.config", "Config"),
    "Explanation": ("artifactnet.types", "Explanation"),
    "Prediction": ("artifactnet.types", "Prediction"),
    "Predictor": ("artifactnet.inference.predictor", "Predictor"),
    "evaluate": ("artifactnet.evaluation.evaluate", "evaluate"),
    "explain": ("artifactnet.explanation.explainer", "explain"),
    "load_config": ("artifactnet.config", "load"),
    "load_model": ("artifactnet.inference.load", "load_model"),
    "synthesize": ("artifactnet.data.synthetic.synthesize", "synthesize"),
    "train": ("artifactnet.api", "train"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'artifactnet' has no attribute {name!r}")
    module, attribute = _HOME[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
